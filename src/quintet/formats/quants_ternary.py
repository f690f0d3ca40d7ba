"""Decoders of TQ1_0 and TQ2_0: super-blocks of 256 weights of -1, 0 or 1, and one scale.

Source: block_tq1_0 and block_tq2_0 in ggml/src/ggml-common.h, `dequantize_row_tq*` in
ggml/src/ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.formats.quants_32 import Values, column

Blocks = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

TQ1_0 = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
TQ2_0 = np.dtype([("qs", "u1", 64), ("d", "<f2")])


def tq1_0(blocks: Blocks, out: Values) -> None:
    """w = d * (q - 1), five q to a byte: 1.6875 bits per weight."""
    _decode(blocks, tq1_0_codes(blocks), out)


def tq2_0(blocks: Blocks, out: Values) -> None:
    """w = d * (q - 1), q of 2 bits: 2.0625 bits per weight."""
    _decode(blocks, tq2_0_codes(blocks), out)


def tq1_0_codes(blocks: Blocks) -> Bytes:
    """[n, 256] of 0, 1, 2.

    Bytes 0..31 hold weights 0..159, five apart by 32; bytes 32..47 the next 80, five apart by 16;
    the four of `qh` the last 16, four apart by 4.
    """
    qs = blocks["qs"]
    parts = [
        _digits(chunk, count).reshape(len(blocks), -1)
        for chunk, count in ((qs[:, :32], 5), (qs[:, 32:], 5), (blocks["qh"], 4))
    ]
    return np.concatenate(parts, axis=1)


def tq2_0_codes(blocks: Blocks) -> Bytes:
    """[n, 256] of 0..3.  In each half of 128 weights, a byte has four of them, 32 apart."""
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, np.newaxis]
    fields = blocks["qs"].reshape(-1, 2, 1, 32) >> shifts
    return (fields & np.uint8(3)).reshape(-1, 256)


def _digits(packed: Bytes, count: int) -> Bytes:
    """[n, m] bytes -> [n, count, m]: their digits to base 3, the highest first.

    A byte is a fraction of 256: its product with 3^i, less what overflows, has digit i as the
    whole part of three times itself.
    """
    powers = (3 ** np.arange(count)).astype(np.uint8)[:, np.newaxis]
    shifted = packed[:, np.newaxis] * powers
    return (shifted.astype(np.uint16) * 3 >> 8).astype(np.uint8)


def _decode(blocks: Blocks, codes: Bytes, out: Values) -> None:
    out[:] = codes
    out -= 1
    out *= column(blocks["d"])
