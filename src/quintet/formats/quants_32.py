"""Decoders of the formats with blocks of 32 weights.

Each takes `blocks`, [n] of the structure above it, and fills `out`, [n, 32] float32.
Where two weights share a byte, the low nibbles are weights 0..15 and the high ones 16..31.

Source: the structs of the same names in ggml/src/ggml-common.h and `dequantize_row_*` in
ggml/src/ggml-quants.c.  The order of the float operations is theirs, so the bits are too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Blocks = npt.NDArray[Any]
Values = npt.NDArray[np.float32]

Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
IQ4_NL = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
MXFP4 = np.dtype([("e", "u1"), ("qs", "u1", 16)])

# The 16 values a 4-bit code of IQ4_NL and IQ4_XS stands for: `kvalues_iq4nl`.
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

# The E2M1 numbers of OCP Microscaling Formats v1.0, doubled to be whole: `kvalues_mxfp4`.
# Code 8, which would be -0, is +0 here as it is there.
FP4_VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def column(field: npt.NDArray[Any]) -> Values:
    """[n] of a block's scale -> [n, 1] float32, to broadcast over its weights."""
    return field.astype(np.float32)[:, np.newaxis]


class NibbleTable:
    """The values of a byte's low and high nibble, looked up by the whole byte."""

    def __init__(self, values: tuple[int, ...]) -> None:
        table = np.array(values, dtype=np.float32)
        codes = np.arange(256)
        self.low: Values = table[codes & 15]
        self.high: Values = table[codes >> 4]


IQ4_TABLE = NibbleTable(IQ4_VALUES)
FP4_TABLE = NibbleTable(FP4_VALUES)


def q4_0(blocks: Blocks, out: Values) -> None:
    """w = d * (q - 8), q of 4 bits: 4.5 bits per weight."""
    _nibbles(blocks["qs"], out)
    out -= 8
    out *= column(blocks["d"])


def q4_1(blocks: Blocks, out: Values) -> None:
    """w = d * q + m, q of 4 bits: 5 bits per weight."""
    _nibbles(blocks["qs"], out)
    out *= column(blocks["d"])
    out += column(blocks["m"])


def q5_0(blocks: Blocks, out: Values) -> None:
    """w = d * (q - 16), q of 5 bits: 5.5 bits per weight."""
    _five_bits(blocks, out)
    out -= 16
    out *= column(blocks["d"])


def q5_1(blocks: Blocks, out: Values) -> None:
    """w = d * q + m, q of 5 bits: 6 bits per weight."""
    _five_bits(blocks, out)
    out *= column(blocks["d"])
    out += column(blocks["m"])


def q8_0(blocks: Blocks, out: Values) -> None:
    """w = d * q, q a signed byte: 8.5 bits per weight."""
    out[:] = blocks["qs"]
    out *= column(blocks["d"])


def iq4_nl(blocks: Blocks, out: Values) -> None:
    """w = d * IQ4_VALUES[q], q of 4 bits: 4.5 bits per weight."""
    out[:, :16] = IQ4_TABLE.low[blocks["qs"]]
    out[:, 16:] = IQ4_TABLE.high[blocks["qs"]]
    out *= column(blocks["d"])


def mxfp4(blocks: Blocks, out: Values) -> None:
    """w = 2^(e - 128) * FP4_VALUES[q], q of 4 bits: 4.25 bits per weight."""
    out[:, :16] = FP4_TABLE.low[blocks["qs"]]
    out[:, 16:] = FP4_TABLE.high[blocks["qs"]]
    out *= _HALF_E8M0[blocks["e"]][:, np.newaxis]


def _half_e8m0() -> Values:
    """2^(e - 128) for each byte e: half of E8M0, which makes up for FP4_VALUES being doubled.

    e = 0 and e = 1 give subnormal numbers, whose one bit is in the mantissa.
    """
    exponents = np.arange(256, dtype=np.uint32)
    normal = (exponents - 1) << 23
    return np.where(exponents < 2, np.uint32(0x200000) << exponents.clip(0, 1), normal).view(
        np.float32
    )


_HALF_E8M0 = _half_e8m0()


def _nibbles(qs: npt.NDArray[np.uint8], out: Values) -> None:
    """[n, 16] bytes -> [n, 32] codes of 0..15."""
    out[:, :16] = qs & 15
    out[:, 16:] = qs >> 4


def _five_bits(blocks: Blocks, out: Values) -> None:
    """A nibble from `qs` and a fifth bit from `qh`, whose bit i belongs to weight i."""
    qs = blocks["qs"]
    fifth = np.unpackbits(blocks["qh"], axis=1, bitorder="little") << 4
    out[:, :16] = (qs & 15) | fifth[:, :16]
    out[:, 16:] = (qs >> 4) | fifth[:, 16:]
