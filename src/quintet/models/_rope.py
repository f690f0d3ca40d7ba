"""Rotary frequencies: the plain ones, and the scalings a model may ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.models._config import Keys


def inverse_frequencies(theta: float, rotary_dim: int) -> tuple[float, ...]:
    """theta ** (-2i / rotary_dim) for i in 0 .. rotary_dim / 2 - 1.  Source: arXiv:2104.09864."""
    return tuple(theta ** (-2.0 * i / rotary_dim) for i in range(rotary_dim // 2))


def divide(
    inv_freq: Sequence[float], factors: Sequence[float], path: str | None
) -> tuple[float, ...]:
    """Each frequency divided by its factor, as GGUF's `rope_freqs.weight` means it."""
    if len(factors) != len(inv_freq):
        raise ModelFormatError(
            f"expected {len(inv_freq)} factors, found {len(factors)}",
            path=path,
            part="rope_freqs.weight",
        )
    if not all(math.isfinite(f) and f > 0 for f in factors):
        raise ModelFormatError("expected positive factors", path=path, part="rope_freqs.weight")
    return tuple(f / float(d) for f, d in zip(inv_freq, factors, strict=True))


def scale_from_hf(
    inv_freq: tuple[float, ...], rope: Mapping[str, Any], keys: Keys
) -> tuple[float, ...]:
    """Apply the `rope_scaling` (or `rope_parameters`) of a config.json.

    Raises:
        UnsupportedModelError: a scaling other than default, linear and llama3.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return inv_freq
    scaling = Keys(rope, path=keys.path)
    if kind == "linear":
        factor = scaling.number("factor")
        return tuple(f / factor for f in inv_freq)
    if kind == "llama3":
        return _llama3(inv_freq, scaling)
    raise UnsupportedModelError("rope scaling", str(kind), ("default", "linear", "llama3"))


def scale_from_gguf(inv_freq: tuple[float, ...], keys: Keys) -> tuple[float, ...]:
    """Apply the `rope.scaling.*` keys of a GGUF file.

    Llama 3's scaling is not among them: its factors are the tensor `rope_freqs.weight`.
    """
    if not keys.has("rope.scaling.type"):
        return inv_freq
    kind = keys.values[keys.prefix + "rope.scaling.type"]
    if kind == "none":
        return inv_freq
    if kind == "linear":
        factor = keys.number("rope.scaling.factor", default=1.0)
        return tuple(f / factor for f in inv_freq)
    raise UnsupportedModelError("rope scaling", str(kind), ("none", "linear"))


def _llama3(inv_freq: tuple[float, ...], scaling: Keys) -> tuple[float, ...]:
    """Llama 3.1's scaling: long wavelengths divided, short ones kept, a ramp between.

    Source: the `llama3` entry of transformers' modeling_rope_utils and the Llama 3.1 release.
    """
    factor = scaling.number("factor")
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    original = scaling.number("original_max_position_embeddings")
    if high <= low:
        raise scaling.error("high_freq_factor", f"expected more than low_freq_factor {low}")
    scaled = []
    for f in inv_freq:
        wavelength = 2 * math.pi / f
        if wavelength > original / low:
            scaled.append(f / factor)
        elif wavelength < original / high:
            scaled.append(f)
        else:
            smooth = (original / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * f / factor + smooth * f)
    return tuple(scaled)
