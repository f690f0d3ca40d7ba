"""Decoders of the plain float formats: `blocks` is [n] of the stored number, `out` is [n, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Blocks = npt.NDArray[Any]
Values = npt.NDArray[np.float32]


def f32(blocks: Blocks, out: Values) -> None:
    """IEEE binary32, as it is."""
    out[:, 0] = blocks


def f16(blocks: Blocks, out: Values) -> None:
    """IEEE binary16; every value is exact in float32."""
    out[:, 0] = blocks


def bf16(blocks: Blocks, out: Values) -> None:
    """The upper half of a binary32."""
    bits = out[:, 0].view(np.uint32)
    bits[:] = blocks
    bits <<= 16
