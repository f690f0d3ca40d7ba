"""Decoders of IQ1, IQ2 and IQ3: super-blocks of 256 weights, coded by runs of 4 or 8.

A code names a point of a codebook (`quants_iq_grids`): the magnitudes of a run of weights.  Their
signs lie beside it.  Each decoder has two steps, because layouts of the kernels are made from the
first: a `*_parts` gives whole numbers, and `decode` scales them:

    w = d * UNIT * (2 scale + 1) * number

Every product of it is exact in float32, so the bits are those of any order of operations.

Source: the structs block_iq* in ggml/src/ggml-common.h and `dequantize_row_iq*` in
ggml/src/ggml-quants.c.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quintet.formats import quants_iq_grids as grids
from quintet.formats.quants_32 import Values, column

Blocks = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int8]

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

# What a number counts: eighths of 2 scale + 1 in IQ1 and IQ2.
IQ1_UNIT = IQ2_UNIT = 0.125
IQ3_XXS_UNIT = 0.25
IQ3_S_UNIT = 1.0


class Parts(NamedTuple):
    """Super-blocks as whole numbers and their scales.

    Attributes:
        d: [n] float16.
        scales: [n, groups] uint8, the odd numbers 2 scale + 1, at most 31; a group is 16 or 32
            weights.
        numbers: [n, 256] int8.
    """

    d: npt.NDArray[np.float16]
    scales: Bytes
    numbers: Numbers


def decode(parts: Parts, unit: float, out: Values) -> None:
    """Fill `out`, [n, 256]."""
    out[:] = parts.numbers
    groups = out.reshape(*parts.scales.shape, -1)
    groups *= (column(parts.d) * np.float32(unit) * parts.scales)[:, :, np.newaxis]


def iq1_s(blocks: Blocks, out: Values) -> None:
    """w = d * scale * (point +- 1/8) per 32: 1.5625 bits per weight."""
    decode(iq1_s_parts(blocks), IQ1_UNIT, out)


def iq1_m(blocks: Blocks, out: Values) -> None:
    """w = d * scale * (point +- 1/8), scaled per 16 and shifted per 8: 1.75 bits per weight."""
    decode(iq1_m_parts(blocks), IQ1_UNIT, out)


def iq2_xxs(blocks: Blocks, out: Values) -> None:
    """w = d * scale * +-point per 32, 7 bits for 8 signs: 2.0625 bits per weight."""
    decode(iq2_xxs_parts(blocks), IQ2_UNIT, out)


def iq2_xs(blocks: Blocks, out: Values) -> None:
    """w = d * scale * +-point per 16, 7 bits for 8 signs: 2.3125 bits per weight."""
    decode(iq2_xs_parts(blocks), IQ2_UNIT, out)


def iq2_s(blocks: Blocks, out: Values) -> None:
    """w = d * scale * +-point per 16: 2.5625 bits per weight."""
    decode(iq2_s_parts(blocks), IQ2_UNIT, out)


def iq3_xxs(blocks: Blocks, out: Values) -> None:
    """w = d * scale * +-point per 32, 7 bits for 8 signs: 3.0625 bits per weight."""
    decode(iq3_xxs_parts(blocks), IQ3_XXS_UNIT, out)


def iq3_s(blocks: Blocks, out: Values) -> None:
    """w = d * scale * +-point per 32: 3.4375 bits per weight."""
    decode(iq3_s_parts(blocks), IQ3_S_UNIT, out)


def iq1_s_parts(blocks: Blocks) -> Parts:
    """Numbers 8 point +- 1.  `qh`: three bits for each of four codes, three of scale, the sign."""
    qh = blocks["qh"]
    upper = _fields(qh, (0, 3, 6, 9), 7).reshape(-1, 32)
    points = grids.iq1()[blocks["qs"] | (upper << 8)].reshape(-1, 8, 32)
    shift = np.where(qh & 0x8000, np.int8(-1), np.int8(1))[:, :, np.newaxis]
    numbers = points * np.int8(8) + shift
    scales = (2 * (qh >> 12 & 7) + 1).astype(np.uint8)
    return Parts(blocks["d"], scales, numbers.reshape(-1, 256))


def iq1_m_parts(blocks: Blocks) -> Parts:
    """Numbers 8 point +- 1.  Nibbles of `qh`: three bits of a code, and the sign of its shift.

    A word of `scales` has four scales of three bits, and in its upper nibble a quarter of d.
    """
    qh = _fields(blocks["qh"], (0, 4), 15).reshape(-1, 32)
    points = grids.iq1()[blocks["qs"] | ((qh & 7).astype(np.uint16) << 8)]
    shift = np.where(qh & 8, np.int8(-1), np.int8(1))[:, :, np.newaxis]
    numbers = points * np.int8(8) + shift
    words = blocks["scales"]
    d = np.bitwise_or.reduce((words >> 12) << np.arange(0, 16, 4, dtype=np.uint16), axis=1)
    scales = 2 * _fields(words, (0, 3, 6, 9), 7).astype(np.uint8) + 1
    return Parts(d.view("<f2"), scales.reshape(-1, 16), numbers.reshape(-1, 256))


def iq2_xxs_parts(blocks: Blocks) -> Parts:
    """Signed magnitudes.  The upper nibble of `signs` is the scale."""
    words = blocks["groups"]["signs"]
    numbers = grids.iq2_xxs()[blocks["groups"]["qs"]].reshape(-1, 256)
    _apply_signs(_sign_bytes(words), numbers)
    return Parts(blocks["d"], (2 * (words >> 28) + 1).astype(np.uint8), numbers)


def iq2_xs_parts(blocks: Blocks) -> Parts:
    """Signed magnitudes.  `qs`: nine bits of code and seven of signs."""
    qs = blocks["qs"]
    numbers = grids.iq2_xs()[qs & 511].reshape(-1, 256)
    _apply_signs(_EVEN_SIGNS[qs >> 9], numbers)
    return Parts(blocks["d"], _nibble_scales(blocks["scales"]), numbers)


def iq2_s_parts(blocks: Blocks) -> Parts:
    """Signed magnitudes.  `qh` has the upper two bits of four codes."""
    upper = _fields(blocks["qh"], (0, 2, 4, 6), 3).astype(np.uint16).reshape(-1, 32)
    numbers = grids.iq2_s()[blocks["qs"] | (upper << 8)].reshape(-1, 256)
    _apply_signs(blocks["signs"], numbers)
    return Parts(blocks["d"], _nibble_scales(blocks["scales"]), numbers)


def iq3_xxs_parts(blocks: Blocks) -> Parts:
    """Signed magnitudes.  The upper nibble of `signs` is the scale."""
    words = blocks["signs"]
    numbers = grids.iq3_xxs()[blocks["qs"]].reshape(-1, 256)
    _apply_signs(_sign_bytes(words), numbers)
    return Parts(blocks["d"], (2 * (words >> 28) + 1).astype(np.uint8), numbers)


def iq3_s_parts(blocks: Blocks) -> Parts:
    """Signed magnitudes.  A bit of `qh` is the ninth of a code."""
    ninth = np.unpackbits(blocks["qh"], axis=1, bitorder="little").astype(np.uint16)
    numbers = grids.iq3_s()[blocks["qs"] | (ninth << 8)].reshape(-1, 256)
    _apply_signs(blocks["signs"], numbers)
    return Parts(blocks["d"], _nibble_scales(blocks["scales"]), numbers)


def _fields(words: Blocks, shifts: tuple[int, ...], mask: int) -> Blocks:
    """[n, m] words -> [n, m, len(shifts)], the bits of `mask` from each shift on."""
    fields: Blocks = (words[:, :, np.newaxis] >> np.array(shifts, words.dtype)) & mask
    return fields


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


def _apply_signs(signs: Bytes, numbers: Numbers) -> None:
    """Turn the numbers whose bit is set; [n, 32] bytes, [n, 256] numbers."""
    minus = np.unpackbits(signs, axis=1, bitorder="little").view(np.bool_)
    np.negative(numbers, where=minus, out=numbers)
