"""Decoder of NVFP4: blocks of 64 weights in four groups of 16, each with a scale of its own.

Source: block_nvfp4 in ggml/src/ggml-common.h, `dequantize_row_nvfp4` in ggml/src/ggml-quants.c;
E2M1 and E4M3 of OCP Microscaling Formats v1.0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.formats.quants_32 import FP4_TABLE, Values

Blocks = npt.NDArray[Any]

NVFP4 = np.dtype([("scales", "u1", 4), ("qs", "u1", (4, 8))])


def nvfp4(blocks: Blocks, out: Values) -> None:
    """w = scale / 2 * FP4_VALUES[q] per 16, q of 4 bits: 4.5 bits per weight."""
    groups = out.reshape(-1, 4, 16)
    groups[:, :, :8] = FP4_TABLE.low[blocks["qs"]]
    groups[:, :, 8:] = FP4_TABLE.high[blocks["qs"]]
    groups *= HALF_E4M3[blocks["scales"]][:, :, np.newaxis]


def _half_e4m3() -> Values:
    """Half the value of each byte, read without its sign; 0x7f, which would be NaN, is 0.

    The half makes up for FP4_VALUES being doubled.
    """
    codes = np.arange(256)
    exponents = codes >> 3 & 15
    mantissas = codes & 7
    normal = np.ldexp(8.0 + mantissas, exponents - 11)
    values = np.where(exponents == 0, np.ldexp(mantissas.astype(float), -10), normal)
    values[0x7F] = 0
    return values.astype(np.float32)


HALF_E4M3 = _half_e4m3()
