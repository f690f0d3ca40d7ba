"""Decoders of IQ1, IQ2 and IQ3: super-blocks of 256 weights, coded by runs of 4 or 8.

A file's code names a point of a codebook (`quants_iq_grids`), the digits of a run of weights; a
flag per weight or run gives its sign, or shifts it.  Digit and flag together are a code of 3 or 4
bits here, whose number is in a table of the format:

    w = d * unit * (2 scale + 1) * table[code]

Layouts of the kernels are made of the same codes.  Every product is exact in float32, so the bits
are those of any order of operations.

Source: the structs block_iq* in ggml/src/ggml-common.h and `dequantize_row_iq*` in
ggml/src/ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quintet.formats import quants_iq_grids as grids
from quintet.formats.quants_32 import Values, column

Blocks = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

IQ1_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
IQ1_M = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])
IQ2_XXS = np.dtype([("d", "<f2"), ("groups", [("qs", "u1", 4), ("signs", "<u4")], 8)])
IQ2_XS = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
IQ2_S = np.dtype(
    [("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)]
)
IQ3_XXS = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("signs", "<u4", 8)])
IQ3_S = np.dtype(
    [("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)]
)

# Numbers by code: digits without the flag, then with it.  IQ1's are eighths: 8 digit - 8 +- 1.
IQ1_TABLE = (-7, 1, 9, 0, -9, -1, 7, 0)
IQ2_TABLE = (8, 25, 43, 0, -8, -25, -43, 0)
IQ3_XXS_TABLE = (4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62)
IQ3_S_TABLE = (1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15)


class Coded(NamedTuple):
    """Super-blocks as codes and what scales their numbers.

    Attributes:
        d: [n] float16.
        scales: [n, 8 or 16] uint8, of 32 or 16 weights each: the odd numbers 2 scale + 1 <= 31.
        codes: [n, 256] uint8.
    """

    d: npt.NDArray[np.float16]
    scales: Bytes
    codes: Bytes


@dataclass(frozen=True)
class CodebookFormat:
    """One of the formats.

    Attributes:
        layout: the structure of its blocks.
        table: the number of each code, at most 16.
        unit: what numbers count, as a part of d.
        unpack: blocks to codes.
    """

    layout: np.dtype[Any]
    table: tuple[int, ...]
    unit: float
    unpack: Callable[[Blocks], Coded]

    def decode(self, blocks: Blocks, out: Values) -> None:
        """Fill `out`, [n, 256], with the weights of `blocks`."""
        d, scales, codes = self.unpack(blocks)
        np.take(np.array(self.table, np.float32), codes, out=out, mode="clip")
        groups = out.reshape(*scales.shape, -1)
        groups *= (column(d) * np.float32(self.unit) * scales)[:, :, np.newaxis]


def iq1_s(blocks: Blocks) -> Coded:
    """Per 32: `qh` has three bits of each of four codes, three of scale, and the shift."""
    qh = blocks["qh"]
    upper = _fields(qh, (0, 3, 6, 9), 7).reshape(-1, 32)
    flags = np.repeat(np.where(qh & 0x8000, np.uint8(255), np.uint8(0)), 4, axis=1)
    codes = _codes(grids.iq1()[blocks["qs"] | (upper << 8)], flags, 2)
    return Coded(blocks["d"], (2 * (qh >> 12 & 7) + 1).astype(np.uint8), codes)


def iq1_m(blocks: Blocks) -> Coded:
    """Scaled per 16, shifted per 8: nibbles of `qh` have three bits of a code, and the shift.

    A word of `scales` has four scales of three bits, and in its upper nibble a quarter of d.
    """
    qh = _fields(blocks["qh"], (0, 4), 15).reshape(-1, 32)
    points = grids.iq1()[blocks["qs"] | ((qh & 7).astype(np.uint16) << 8)]
    codes = _codes(points, np.where(qh & 8, np.uint8(255), np.uint8(0)), 2)
    words = blocks["scales"]
    d = np.bitwise_or.reduce((words >> 12) << np.arange(0, 16, 4, dtype=np.uint16), axis=1)
    scales = (2 * _fields(words, (0, 3, 6, 9), 7) + 1).astype(np.uint8)
    return Coded(d.view("<f2"), scales.reshape(-1, 16), codes)


def iq2_xxs(blocks: Blocks) -> Coded:
    """Per 32: four codes, four times seven signs, and the scale in the upper nibble."""
    words = blocks["groups"]["signs"]
    points = grids.iq2_xxs()[blocks["groups"]["qs"].reshape(-1, 32)]
    return Coded(blocks["d"], _upper_scales(words), _codes(points, _sign_bytes(words), 2))


def iq2_xs(blocks: Blocks) -> Coded:
    """Scaled per 16: words of nine bits of code and seven of signs."""
    qs = blocks["qs"]
    codes = _codes(grids.iq2_xs()[qs & 511], _EVEN_SIGNS[qs >> 9], 2)
    return Coded(blocks["d"], _nibble_scales(blocks["scales"]), codes)


def iq2_s(blocks: Blocks) -> Coded:
    """Scaled per 16: `qh` has the upper two bits of four codes."""
    upper = _fields(blocks["qh"], (0, 2, 4, 6), 3).astype(np.uint16).reshape(-1, 32)
    codes = _codes(grids.iq2_s()[blocks["qs"] | (upper << 8)], blocks["signs"], 2)
    return Coded(blocks["d"], _nibble_scales(blocks["scales"]), codes)


def iq3_xxs(blocks: Blocks) -> Coded:
    """Per 32: eight codes, four times seven signs, and the scale in the upper nibble."""
    words = blocks["signs"]
    points = grids.iq3_xxs()[blocks["qs"]].view("<u8")
    return Coded(blocks["d"], _upper_scales(words), _codes(points, _sign_bytes(words), 3))


def iq3_s(blocks: Blocks) -> Coded:
    """Scaled per 32: a bit of `qh` is the ninth of a code."""
    ninth = np.unpackbits(blocks["qh"], axis=1, bitorder="little").astype(np.uint16)
    points = grids.iq3_s()[blocks["qs"] | (ninth << 8)].view("<u8")
    codes = _codes(points, blocks["signs"], 3)
    return Coded(blocks["d"], _nibble_scales(blocks["scales"]), codes)


def _codes(points: Blocks, flags: Bytes, digit_bits: int) -> Bytes:
    """[n, 32] runs of eight digits and their eight flags -> [n, 256] codes."""
    words = points | (_SPREAD[flags] << np.uint64(digit_bits))
    return words.view(np.uint8)


def _spread() -> npt.NDArray[np.uint64]:
    """[256]: each bit of a byte as a byte of a word."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little")
    words: npt.NDArray[np.uint64] = bits.view("<u8")[:, 0]
    return words


_SPREAD = _spread()


def _fields(words: Blocks, shifts: tuple[int, ...], mask: int) -> Blocks:
    """[n, m] words -> [n, m, len(shifts)], the bits of `mask` from each shift on."""
    fields: Blocks = (words[:, :, np.newaxis] >> np.array(shifts, words.dtype)) & mask
    return fields


def _upper_scales(words: Blocks) -> Bytes:
    """[n, 8] words with a scale in the upper nibble -> 2 scale + 1."""
    scales: Bytes = (2 * (words >> 28) + 1).astype(np.uint8)
    return scales


def _nibble_scales(packed: Bytes) -> Bytes:
    """[n, m] bytes of two scales, the lower first -> [n, 2m] of 2 scale + 1."""
    scales: Bytes = (2 * _fields(packed, (0, 4), 15) + 1).reshape(len(packed), -1)
    return scales


def _even_signs() -> Bytes:
    """[128]: seven signs to a byte of eight, of which an even number is minus (`ksigns_iq2xs`)."""
    seven = np.arange(128, dtype=np.uint8)
    odd = np.unpackbits(seven[:, np.newaxis], axis=1).sum(axis=1) & 1
    signs: Bytes = (seven | (odd << 7)).astype(np.uint8)
    return signs


_EVEN_SIGNS = _even_signs()


def _sign_bytes(words: Blocks) -> Bytes:
    """[n, 8] words with the signs of four runs in seven bits each -> [n, 32] bytes."""
    return _EVEN_SIGNS[_fields(words, (0, 7, 14, 21), 127)].reshape(-1, 32)


# By their names in `GGMLType`; bits per weight are 1.5625, 1.75, 2.0625, 2.3125, 2.5625, 3.0625
# and 3.4375.
FORMATS = {
    "IQ1_S": CodebookFormat(IQ1_S, IQ1_TABLE, 0.125, iq1_s),
    "IQ1_M": CodebookFormat(IQ1_M, IQ1_TABLE, 0.125, iq1_m),
    "IQ2_XXS": CodebookFormat(IQ2_XXS, IQ2_TABLE, 0.125, iq2_xxs),
    "IQ2_XS": CodebookFormat(IQ2_XS, IQ2_TABLE, 0.125, iq2_xs),
    "IQ2_S": CodebookFormat(IQ2_S, IQ2_TABLE, 0.125, iq2_s),
    "IQ3_XXS": CodebookFormat(IQ3_XXS, IQ3_XXS_TABLE, 0.25, iq3_xxs),
    "IQ3_S": CodebookFormat(IQ3_S, IQ3_S_TABLE, 1.0, iq3_s),
}
