"""Formats without a layout of their own, rewritten as blocks of one that holds them exactly.

Codebooks of a few whole numbers (IQ1, IQ2, IQ3) and NVFP4 become blocks of table codes with a
scale per 16 weights, ternary formats blocks of Q2_K.  All but NVFP4 keep every weight to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet._native import Layout, SourceType
from quintet.formats import quants_iq, quants_k, quants_nvfp4, quants_ternary
from quintet.formats.ggml_types import GGMLType
from quintet.formats.quants_32 import FP4_VALUES

Blocks = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

SUPER_BLOCK = 256  # rows of a multiple of it can be widened
_WEIGHTS_PER_CHUNK = 64 * 1024  # temporaries of a few bytes for each

# `Table` of csrc/kernels/gguf_blocks.h: w = d * scale * (value[code] - 64) / 8.
_TABLE = np.dtype([("d", "<f2"), ("values", "u1", 16), ("scales", "i1", 16), ("qs", "u1", (8, 16))])
_TABLE_ZERO = 64
_TABLE_UNIT = 0.125


@dataclass(frozen=True)
class Widening:
    """How a format is rewritten.

    Attributes:
        source: what its blocks become.
        layout: what holds those exactly.
        read: its own blocks.
        write: the new ones.
        rewrite: fills new blocks with what old ones, of as many weights, say.
        num_read: old blocks to a new one.
    """

    source: SourceType
    layout: Layout
    read: np.dtype[Any]
    write: np.dtype[Any]
    rewrite: Callable[[Blocks, Blocks], None]
    num_read: int = 1

    def __call__(self, raw: Bytes) -> Bytes:
        """A matrix's bytes, rows of whole super-blocks, as blocks of `source`."""
        blocks = np.ascontiguousarray(raw).reshape(-1).view(self.read)
        wide = np.empty(blocks.size // self.num_read, self.write)
        step = _WEIGHTS_PER_CHUNK // SUPER_BLOCK
        # A damaged scale may be NaN or infinite, as in `formats.quants`.
        with np.errstate(all="ignore"):
            for start in range(0, wide.size, step):
                part = wide[start : start + step]
                end = (start + step) * self.num_read
                self.rewrite(blocks[start * self.num_read : end], part)
        return wide.view(np.uint8)


def _codebook(codebook: quants_iq.CodebookFormat) -> Widening:
    """Codes and scales as they are; only scales of 32 weights are written twice."""
    bits4 = len(codebook.table) > 8

    def rewrite(blocks: Blocks, wide: Blocks) -> None:
        d, scales, codes = codebook.unpack(blocks)
        wide["d"] = d * np.float16(codebook.unit / _TABLE_UNIT)
        wide["scales"] = np.repeat(scales, 16 // scales.shape[1], axis=1)
        _put_codes(codes, codebook.table, wide)

    return Widening(
        SourceType.TABLE4 if bits4 else SourceType.TABLE3,
        Layout.W4T if bits4 else Layout.W3T,
        codebook.layout,
        _TABLE,
        rewrite,
    )


def _put_codes(codes: Bytes, table: tuple[int, ...], wide: Blocks) -> None:
    """[n, 256] codes and what they stand for."""
    groups = codes.reshape(-1, 8, 2, 16)
    wide["qs"] = groups[:, :, 0] | (groups[:, :, 1] << 4)
    values = np.zeros(16, np.uint8)
    values[: len(table)] = np.array(table) + _TABLE_ZERO
    wide["values"] = values


def _nvfp4(blocks: Blocks, wide: Blocks) -> None:
    """16 scales of 4 bits and an exponent as whole numbers of one unit, at most 120.

    The unit is an eighth of the largest scale's last bit: scales down to an eighth of the largest
    are exact, smaller ones are off by at most 1/128 of the largest.
    """
    scales = quants_nvfp4.HALF_E4M3[blocks["scales"]].reshape(-1, 16)
    _, exponents = np.frexp(scales.max(axis=1))
    units = np.ldexp(np.float32(1), exponents - 7)  # the largest scale is below 128 of them
    wide["d"] = units / _TABLE_UNIT
    wide["scales"] = np.rint(scales / units[:, np.newaxis])
    qs = blocks["qs"].reshape(-1, 16, 8)
    codes = np.concatenate((qs & 15, qs >> 4), axis=2).reshape(-1, SUPER_BLOCK)
    _put_codes(codes, FP4_VALUES, wide)


def _ternary(codes: Callable[[Blocks], Bytes]) -> Callable[[Blocks, Blocks], None]:
    """d * (code - 1) as Q2_K's d * scale * code - dmin * min, scale and min 1."""

    def rewrite(blocks: Blocks, wide: Blocks) -> None:
        wide["d"] = wide["dmin"] = blocks["d"]
        wide["scales"] = 0x11
        planes = codes(blocks).reshape(-1, 2, 4, 32)
        shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, np.newaxis]
        packed = np.bitwise_or.reduce(planes << shifts, axis=2)
        wide["qs"] = packed.reshape(-1, 64)

    return rewrite


WIDENED: dict[GGMLType, Widening] = {
    **{GGMLType[name]: _codebook(codebook) for name, codebook in quants_iq.FORMATS.items()},
    GGMLType.NVFP4: Widening(
        SourceType.TABLE4, Layout.W4T, quants_nvfp4.NVFP4, _TABLE, _nvfp4, num_read=4
    ),
    **{
        ggml_type: Widening(SourceType.Q2_K, Layout.W2K, read, quants_k.Q2_K, _ternary(codes))
        for ggml_type, read, codes in (
            (GGMLType.TQ1_0, quants_ternary.TQ1_0, quants_ternary.tq1_0_codes),
            (GGMLType.TQ2_0, quants_ternary.TQ2_0, quants_ternary.tq2_0_codes),
        )
    },
}
