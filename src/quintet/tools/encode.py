"""Weights to a number format, natively: csrc/quantize/encode.h has the method."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quintet import _native
from quintet.errors import ModelFormatError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.quants import dequantize

# What the encoder reads as it lies in the file.
_DIRECT = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)


def encode(
    raw: npt.NDArray[np.uint8],
    source: GGMLType,
    row_size: int,
    target: GGMLType,
    *,
    importance: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
    name: str = "",
) -> npt.NDArray[np.uint8]:
    """
    Rows of one format as rows of another.

    Args:
        raw: [num_bytes] uint8, whole rows of `source`.
        source: any format that can be read.
        row_size: weights per row, a multiple of both formats' blocks.
        target: a format of `recipes.TENSOR_TYPES`.
        importance: [row_size], how much the square error of each column counts.
        num_threads: None: one per physical core.
        name: of the tensor, for errors.

    Returns:
        [num_bytes] uint8.

    Raises:
        ModelFormatError: a NaN or an infinite value, which blocks cannot hold.
        UnsupportedModelError: a source format that cannot be read.
    """
    if source == target:
        return raw
    num_rows = raw.size // (row_size // source.block_size * source.block_bytes)
    if source not in _DIRECT:
        raw = dequantize(raw, source, (num_rows, row_size)).reshape(-1).view(np.uint8)
        source = GGMLType.F32
    if target == GGMLType.F32:
        return dequantize(raw, source, (num_rows, row_size)).reshape(-1).view(np.uint8)
    blocks = np.empty(target.num_bytes((num_rows, row_size)), np.uint8)
    is_finite = _native.quantize_rows(
        int(target),
        int(source),
        np.ascontiguousarray(raw),
        row_size,
        blocks,
        importance=importance,
        num_threads=num_threads or _native.default_num_threads(),
    )
    if not is_finite:
        raise ModelFormatError(
            f"expected finite values for {target.name}, found NaN or infinity",
            part=f"tensor {name!r}",
        )
    return blocks
