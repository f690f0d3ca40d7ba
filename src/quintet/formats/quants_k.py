"""Decoders of the formats with super-blocks of 256 weights.

Each takes `blocks`, [n] of the structure above it, and fills `out`, [n, 256] float32.
A super-block has one or two float16 scales, and a small integer scale per group of 16 or 32.

Source: the structs of the same names in ggml/src/ggml-common.h and `dequantize_row_*` in
ggml/src/ggml-quants.c.  The order of the float operations is theirs, so the bits are too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.formats.quants_32 import IQ4_TABLE, Values, column

Blocks = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
Q5_K = np.dtype(
    [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
)
Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
IQ4_XS = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])


def q2_k(blocks: Blocks, out: Values) -> None:
    """w = d * scale * q - dmin * min per 16, q of 2 bits: 2.625 bits per weight."""
    qs = blocks["qs"].reshape(-1, 2, 32)
    codes = out.reshape(-1, 2, 4, 32)
    for plane in range(4):
        codes[:, :, plane] = (qs >> (2 * plane)) & 3
    groups = out.reshape(-1, 16, 16)
    groups *= (column(blocks["d"]) * (blocks["scales"] & 15))[:, :, np.newaxis]
    groups -= (column(blocks["dmin"]) * (blocks["scales"] >> 4))[:, :, np.newaxis]


def q3_k(blocks: Blocks, out: Values) -> None:
    """w = d * (scale - 32) * (q - 4) per 16, q of 2 + 1 bits: 3.4375 bits per weight."""
    qs = blocks["qs"].reshape(-1, 2, 32)
    codes = out.reshape(-1, 2, 4, 32)
    for half in range(2):
        for plane in range(4):
            third = (blocks["hmask"] >> (4 * half + plane)) & 1
            codes[:, half, plane] = ((qs[:, half] >> (2 * plane)) & 3) | (third << 2)
    out -= 4
    groups = out.reshape(-1, 16, 16)
    groups *= (column(blocks["d"]) * _q3_scales(blocks["scales"]))[:, :, np.newaxis]


def q4_k(blocks: Blocks, out: Values) -> None:
    """w = d * scale * q - dmin * min per 32, q of 4 bits: 4.5 bits per weight."""
    qs = blocks["qs"].reshape(-1, 4, 32)
    codes = out.reshape(-1, 4, 2, 32)
    codes[:, :, 0] = qs & 15
    codes[:, :, 1] = qs >> 4
    _scale_and_min(blocks, out)


def q5_k(blocks: Blocks, out: Values) -> None:
    """w = d * scale * q - dmin * min per 32, q of 4 + 1 bits: 5.5 bits per weight."""
    qs = blocks["qs"].reshape(-1, 4, 32)
    codes = out.reshape(-1, 4, 2, 32)
    for pair in range(4):
        for half in range(2):
            fifth = (blocks["qh"] >> (2 * pair + half)) & 1
            codes[:, pair, half] = ((qs[:, pair] >> (4 * half)) & 15) | (fifth << 4)
    _scale_and_min(blocks, out)


def q6_k(blocks: Blocks, out: Values) -> None:
    """w = d * scale * (q - 32) per 16, q of 4 + 2 bits: 6.5625 bits per weight."""
    ql = blocks["ql"].reshape(-1, 2, 2, 32)
    qh = blocks["qh"].reshape(-1, 2, 32)
    codes = out.reshape(-1, 2, 4, 32)
    for plane in range(4):
        low = (ql[:, :, plane % 2] >> (4 * (plane // 2))) & 15
        codes[:, :, plane] = low | (((qh >> (2 * plane)) & 3) << 4)
    out -= 32
    groups = out.reshape(-1, 16, 16)
    groups *= (column(blocks["d"]) * blocks["scales"])[:, :, np.newaxis]


def iq4_xs(blocks: Blocks, out: Values) -> None:
    """w = d * (scale - 32) * IQ4_VALUES[q] per 32, q of 4 bits: 4.25 bits per weight."""
    qs = blocks["qs"].reshape(-1, 8, 16)
    groups = out.reshape(-1, 8, 32)
    groups[:, :, :16] = IQ4_TABLE.low[qs]
    groups[:, :, 16:] = IQ4_TABLE.high[qs]
    low = np.stack((blocks["scales_l"] & 15, blocks["scales_l"] >> 4), axis=2).reshape(-1, 8)
    high = (blocks["scales_h"][:, np.newaxis] >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    scales = (low | (high << 4)).astype(np.float32) - 32
    groups *= (column(blocks["d"]) * scales)[:, :, np.newaxis]


def _q3_scales(packed: Bytes) -> Values:
    """[n, 12] bytes -> 16 scales of 6 bits, less 32.

    Bytes 0..7 hold the low nibbles of scales 0..7 below and 8..15 above; bits 2k and 2k + 1 of
    byte 8 + i are the upper bits of scale 4k + i.
    """
    low = np.concatenate((packed[:, :8] & 15, packed[:, :8] >> 4), axis=1)
    high = np.concatenate([(packed[:, 8:] >> (2 * k)) & 3 for k in range(4)], axis=1)
    scales: Values = (low | (high << 4)).astype(np.float32) - 32
    return scales


def _scale_and_min(blocks: Blocks, out: Values) -> None:
    """Apply the 6-bit scales and minima of Q4_K and Q5_K to the codes in `out`.

    Of the 12 bytes, the first four hold scales 0..3 in their low 6 bits, the next four minima
    0..3; the last four hold scales 4..7 (low nibble) and minima 4..7 (high nibble), whose upper
    two bits are the top bits of the first eight bytes.
    """
    first, second, third = (blocks["scales"][:, i : i + 4] for i in (0, 4, 8))
    scales = np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)
    minima = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    groups = out.reshape(-1, 8, 32)
    groups *= (column(blocks["d"]) * scales)[:, :, np.newaxis]
    groups -= (column(blocks["dmin"]) * minima)[:, :, np.newaxis]
