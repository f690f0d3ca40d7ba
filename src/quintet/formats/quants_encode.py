"""Encoders: [n, block_size] float32 -> [n] blocks, with the bits the `gguf` package writes.

Source: `quantize_row_*_ref` in ggml/src/ggml-quants.c and `ggml_compute_fp32_to_bf16` in
ggml/src/ggml-impl.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.formats import quants_32
from quintet.formats.ggml_types import GGMLType

Values = npt.NDArray[np.float32]
Blocks = npt.NDArray[Any]


def f32(values: Values) -> Blocks:
    """As they are."""
    return values.astype("<f4")


def f16(values: Values) -> Blocks:
    """Rounded to nearest even; beyond 65504 becomes infinite."""
    return values.astype("<f2")


def bf16(values: Values) -> Blocks:
    """Rounded to nearest even; a NaN stays one, made quiet."""
    bits = values.view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, (bits >> 16) | 0x40, rounded).astype("<u2")


def q8_0(values: Values) -> Blocks:
    """d = max|w| / 127, q = w / d rounded half away from zero."""
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    scaled = values * _inverse(scale)
    magnitude = np.abs(scaled)
    whole = np.floor(magnitude)
    rounded = np.sign(scaled) * (whole + np.floor(2 * (magnitude - whole)))
    blocks = np.empty(len(values), dtype=quants_32.Q8_0)
    blocks["d"] = scale[:, 0]
    blocks["qs"] = rounded.astype(np.int8)
    return blocks


def q4_0(values: Values) -> Blocks:
    """d = (the w of largest magnitude) / -8, q = w / d + 8 rounded, at most 15."""
    largest = np.abs(values).argmax(axis=1, keepdims=True)
    scale = np.take_along_axis(values, largest, axis=1) / np.float32(-8)
    codes = np.trunc(values * _inverse(scale) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    blocks = np.empty(len(values), dtype=quants_32.Q4_0)
    blocks["d"] = scale[:, 0]
    blocks["qs"] = codes[:, :16] | (codes[:, 16:] << 4)
    return blocks


def _inverse(scale: Values) -> Values:
    """1 / scale, and 0 for 0."""
    inverse: Values = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    return inverse


ENCODERS: dict[GGMLType, Callable[[Values], Blocks]] = {
    GGMLType.F32: f32,
    GGMLType.F16: f16,
    GGMLType.BF16: bf16,
    GGMLType.Q8_0: q8_0,
    GGMLType.Q4_0: q4_0,
}
