"""The number formats a weight file may name, and their block sizes: the one table of them.

A format packs `block_size` consecutive weights of a row into `block_bytes` bytes.
Every id that llama.cpp has ever given out has a name here, so that a format we cannot read is
refused by name.  `DEQUANTIZABLE` holds those that `quants.dequantize` reads.

Source: `enum ggml_type` in ggml/include/ggml.h (ids), the block structs of
ggml/src/ggml-common.h (sizes), and the GGUF specification, docs/gguf.md of ggml-org/ggml.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

from quintet.errors import UnsupportedModelError

# A tensor larger than this in weights or bytes cannot be described by a signed 64-bit integer.
MAX_TENSOR_EXTENT = 2**63 - 1


class GGMLType(enum.IntEnum):
    """A number format, with the id it has in a GGUF file."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q4_2 = 4
    Q4_3 = 5
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    Q4_0_4_4 = 31
    Q4_0_4_8 = 32
    Q4_0_8_8 = 33
    TQ1_0 = 34
    TQ2_0 = 35
    IQ4_NL_4_4 = 36
    IQ4_NL_4_8 = 37
    IQ4_NL_8_8 = 38
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42

    @property
    def block_size(self) -> int:
        """Weights per block; a row of a tensor is a whole number of blocks."""
        return _block(self)[0]

    @property
    def block_bytes(self) -> int:
        """Bytes per block."""
        return _block(self)[1]

    def num_bytes(self, shape: Sequence[int]) -> int:
        """
        Bytes that a tensor of this format takes.

        Args:
            shape: dimensions in NumPy order, the row (the contiguous dimension) last;
                () is a scalar, and a dimension of 0 makes an empty tensor.

        Raises:
            ValueError: a negative dimension, a row that is not a whole number of blocks, or a
                size beyond 2^63 - 1.
            UnsupportedModelError: the format has no known block size.
        """
        block_size, block_bytes = _block(self)
        if any(dimension < 0 for dimension in shape):
            raise ValueError(f"expected dimensions of at least 0, found {tuple(shape)}")
        row = shape[-1] if shape else 1
        if row % block_size:
            raise ValueError(
                f"expected rows of a multiple of {block_size} weights for {self.name}, found {row}"
            )
        num_weights = math.prod(shape)
        num_bytes = num_weights // block_size * block_bytes
        # Each dimension is bounded by itself too: [2^63, 0] has no weights, but is no shape.
        if max(num_weights, num_bytes, *shape, 0) > MAX_TENSOR_EXTENT:
            raise ValueError(f"expected a size below 2^63, found shape {tuple(shape)}")
        return num_bytes


DEQUANTIZABLE = frozenset(
    {
        GGMLType.F32,
        GGMLType.F16,
        GGMLType.BF16,
        GGMLType.Q4_0,
        GGMLType.Q4_1,
        GGMLType.Q5_0,
        GGMLType.Q5_1,
        GGMLType.Q8_0,
        GGMLType.Q2_K,
        GGMLType.Q3_K,
        GGMLType.Q4_K,
        GGMLType.Q5_K,
        GGMLType.Q6_K,
        GGMLType.IQ4_NL,
        GGMLType.IQ4_XS,
        GGMLType.MXFP4,
        GGMLType.NVFP4,
        GGMLType.IQ1_S,
        GGMLType.IQ1_M,
        GGMLType.IQ2_XXS,
        GGMLType.IQ2_XS,
        GGMLType.IQ2_S,
        GGMLType.IQ3_XXS,
        GGMLType.IQ3_S,
        GGMLType.TQ1_0,
        GGMLType.TQ2_0,
    }
)

# (weights per block, bytes per block).  Missing: the formats llama.cpp has removed from files.
_BLOCKS: dict[GGMLType, tuple[int, int]] = {
    GGMLType.F32: (1, 4),
    GGMLType.F16: (1, 2),
    GGMLType.Q4_0: (32, 18),
    GGMLType.Q4_1: (32, 20),
    GGMLType.Q5_0: (32, 22),
    GGMLType.Q5_1: (32, 24),
    GGMLType.Q8_0: (32, 34),
    GGMLType.Q8_1: (32, 36),
    GGMLType.Q2_K: (256, 84),
    GGMLType.Q3_K: (256, 110),
    GGMLType.Q4_K: (256, 144),
    GGMLType.Q5_K: (256, 176),
    GGMLType.Q6_K: (256, 210),
    GGMLType.Q8_K: (256, 292),
    GGMLType.IQ2_XXS: (256, 66),
    GGMLType.IQ2_XS: (256, 74),
    GGMLType.IQ3_XXS: (256, 98),
    GGMLType.IQ1_S: (256, 50),
    GGMLType.IQ4_NL: (32, 18),
    GGMLType.IQ3_S: (256, 110),
    GGMLType.IQ2_S: (256, 82),
    GGMLType.IQ4_XS: (256, 136),
    GGMLType.I8: (1, 1),
    GGMLType.I16: (1, 2),
    GGMLType.I32: (1, 4),
    GGMLType.I64: (1, 8),
    GGMLType.F64: (1, 8),
    GGMLType.IQ1_M: (256, 56),
    GGMLType.BF16: (1, 2),
    GGMLType.TQ1_0: (256, 54),
    GGMLType.TQ2_0: (256, 66),
    GGMLType.MXFP4: (32, 17),
    GGMLType.NVFP4: (64, 36),
    GGMLType.Q1_0: (128, 18),
    GGMLType.Q2_0: (64, 18),
}


def unsupported(ggml_type: GGMLType) -> UnsupportedModelError:
    """The refusal of a number format, which names it and lists those that can be read."""
    return UnsupportedModelError(
        "number format", ggml_type.name, (known.name for known in DEQUANTIZABLE)
    )


def _block(ggml_type: GGMLType) -> tuple[int, int]:
    block = _BLOCKS.get(ggml_type)
    if block is None:
        raise unsupported(ggml_type)
    return block
