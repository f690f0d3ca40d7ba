"""Number formats to float32 and back: the public doors of `quants_*.py`.

A decoder exists for every format in `DEQUANTIZABLE`, an encoder for those that tests and tools
write.  Both reproduce the bits of the `gguf` package (gguf/quants.py), which follows
ggml/src/ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import UnsupportedModelError
from quintet.formats import (
    quants_32,
    quants_encode,
    quants_float,
    quants_iq,
    quants_k,
    quants_nvfp4,
    quants_ternary,
)
from quintet.formats.ggml_types import GGMLType, unsupported

Blocks = npt.NDArray[Any]
Decoder = Callable[[Blocks, npt.NDArray[np.float32]], None]

# Temporaries of a decoder are a few times this many weights: small enough for the L2 cache.
_WEIGHTS_PER_CHUNK = 64 * 1024


def dequantize(
    raw: npt.NDArray[np.uint8], ggml_type: GGMLType, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """
    The float32 values of a tensor.

    Args:
        raw: the tensor's bytes as stored, uint8, any shape.
        ggml_type: their number format.
        shape: NumPy order, rows last.

    Returns:
        A fresh float32 array of `shape`.  Peak extra memory is about a megabyte.

    Raises:
        UnsupportedModelError: a format without a decoder.
        ValueError: `raw` is not uint8, or not as long as format and shape ask for.
    """
    found = _DECODERS.get(ggml_type)
    if found is None:
        raise unsupported(ggml_type)
    layout, decode = found
    if raw.dtype != np.uint8:
        raise ValueError(f"expected uint8, found {raw.dtype}")
    num_bytes = ggml_type.num_bytes(shape)
    if raw.size != num_bytes:
        raise ValueError(
            f"expected {num_bytes} bytes for {ggml_type.name} of shape {shape}, found {raw.size}"
        )
    blocks = np.ascontiguousarray(raw).reshape(-1).view(layout)
    values = np.empty((blocks.size, ggml_type.block_size), dtype=np.float32)
    step = _WEIGHTS_PER_CHUNK // ggml_type.block_size
    # A damaged scale may be NaN or infinite; that is the reader's business, not a warning here.
    with np.errstate(all="ignore"):
        for start in range(0, blocks.size, step):
            decode(blocks[start : start + step], values[start : start + step])
    return values.reshape(shape)


def quantize(values: npt.NDArray[np.float32], ggml_type: GGMLType) -> npt.NDArray[np.uint8]:
    """
    The bytes of a tensor in F32, F16, BF16, Q8_0 or Q4_0.

    Args:
        values: float32, at least one dimension, rows last.

    Returns:
        uint8 of shape (..., bytes per row).

    Raises:
        UnsupportedModelError: a format without an encoder.
        ValueError: rows that are not whole blocks, or values a block cannot hold (NaN, infinity).
    """
    encode = quants_encode.ENCODERS.get(ggml_type)
    if encode is None:
        raise UnsupportedModelError(
            "number format to quantise to",
            ggml_type.name,
            (known.name for known in quants_encode.ENCODERS),
        )
    if values.ndim == 0:
        raise ValueError("expected at least one dimension, found a scalar")
    num_bytes = ggml_type.num_bytes(values.shape)
    if ggml_type.block_size > 1 and not np.isfinite(values).all():
        raise ValueError(f"expected finite values for {ggml_type.name}, found NaN or infinity")
    blocks = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, ggml_type.block_size)
    with np.errstate(all="ignore"):
        encoded = encode(blocks)
    row_bytes = values.shape[-1] // ggml_type.block_size * ggml_type.block_bytes
    result = encoded.view(np.uint8).reshape(-1)
    if result.size != num_bytes:
        raise RuntimeError(f"the encoder of {ggml_type.name} wrote {result.size} bytes")
    return result.reshape(*values.shape[:-1], row_bytes)


_DECODERS: dict[GGMLType, tuple[np.dtype[Any], Decoder]] = {
    GGMLType.F32: (np.dtype("<f4"), quants_float.f32),
    GGMLType.F16: (np.dtype("<f2"), quants_float.f16),
    GGMLType.BF16: (np.dtype("<u2"), quants_float.bf16),
    GGMLType.Q4_0: (quants_32.Q4_0, quants_32.q4_0),
    GGMLType.Q4_1: (quants_32.Q4_1, quants_32.q4_1),
    GGMLType.Q5_0: (quants_32.Q5_0, quants_32.q5_0),
    GGMLType.Q5_1: (quants_32.Q5_1, quants_32.q5_1),
    GGMLType.Q8_0: (quants_32.Q8_0, quants_32.q8_0),
    GGMLType.IQ4_NL: (quants_32.IQ4_NL, quants_32.iq4_nl),
    GGMLType.MXFP4: (quants_32.MXFP4, quants_32.mxfp4),
    GGMLType.Q2_K: (quants_k.Q2_K, quants_k.q2_k),
    GGMLType.Q3_K: (quants_k.Q3_K, quants_k.q3_k),
    GGMLType.Q4_K: (quants_k.Q4_K, quants_k.q4_k),
    GGMLType.Q5_K: (quants_k.Q5_K, quants_k.q5_k),
    GGMLType.Q6_K: (quants_k.Q6_K, quants_k.q6_k),
    GGMLType.IQ4_XS: (quants_k.IQ4_XS, quants_k.iq4_xs),
    GGMLType.TQ1_0: (quants_ternary.TQ1_0, quants_ternary.tq1_0),
    GGMLType.TQ2_0: (quants_ternary.TQ2_0, quants_ternary.tq2_0),
    GGMLType.NVFP4: (quants_nvfp4.NVFP4, quants_nvfp4.nvfp4),
    **{GGMLType[name]: (iq.layout, iq.decode) for name, iq in quants_iq.FORMATS.items()},
}
