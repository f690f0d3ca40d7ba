"""Rotary frequencies: the plain ones, and the scalings a model may ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.models._config import MAX_CONTEXT, Keys

ROPE_FACTORS = "rope_freqs.weight"
LONG_FACTORS = "rope_factors_long.weight"
SHORT_FACTORS = "rope_factors_short.weight"


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
            part="rope factors",
        )
    if not all(math.isfinite(f) and f > 0 for f in factors):
        raise ModelFormatError("expected positive factors", path=path, part="rope factors")
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


@dataclass(frozen=True)
class Scaled:
    """Frequencies for any length, and others for sequences up to a length where there are any.

    Args:
        attention_factor: of `quintet.graph.Rotary`.
        short_inv_freq, short_context_length: see `quintet.models._config.Config`.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0
    short_inv_freq: tuple[float, ...] = ()
    short_context_length: int = 0


def scaled_from_hf(
    theta: float, rotary_dim: int, rope: Mapping[str, Any], keys: Keys, context_length: int
) -> Scaled:
    """A decoder's frequencies by the `rope_scaling` (or `rope_parameters`) of a config.json.

    Raises:
        UnsupportedModelError: a scaling other than default, linear, llama3, yarn and longrope.
    """
    inv_freq = inverse_frequencies(theta, rotary_dim)
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling = Keys(rope, path=keys.path)
    if kind == "yarn":
        original = scaling.number("original_max_position_embeddings", default=context_length)
        factor = scaling.number("factor", default=max(context_length / original, 1.0))
        # Below that, the ratio of how scores are to be scaled to how they are already.
        whole, all_dims = (
            scaling.number(name) if scaling.has(name) and rope[name] else 0.0
            for name in ("mscale", "mscale_all_dim")
        )
        usual = yarn_mscale(factor, 1.0)
        if whole and all_dims:
            usual = yarn_mscale(factor, whole) / yarn_mscale(factor, all_dims)
        ramp = _yarn_ramp(
            theta,
            rotary_dim,
            original,
            scaling.number("beta_fast", default=32.0),
            scaling.number("beta_slow", default=1.0),
            truncate=scaling.flag("truncate", default=True),
        )
        attention_factor = scaling.number("attention_factor", default=usual)
        return Scaled(_interpolated(inv_freq, factor, ramp), attention_factor)
    if kind in ("longrope", "su"):
        where = keys if keys.has("original_max_position_embeddings") else scaling
        original = where.integer("original_max_position_embeddings", maximum=MAX_CONTEXT)
        factor = max(1.0, context_length / original)
        if scaling.has("factor"):
            factor = scaling.number("factor")
        long, short = (
            scaling.numbers(name, size=len(inv_freq)) for name in ("long_factor", "short_factor")
        )
        attention_factor = scaling.number(
            "attention_factor", default=_longrope_attention(factor, original)
        )
        return _longrope(inv_freq, long, short, attention_factor, original, context_length)
    if kind not in ("default", "linear", "llama3"):
        known = ("default", "linear", "llama3", "longrope", "yarn")
        raise UnsupportedModelError("rope scaling", str(kind), known)
    return Scaled(scale_from_hf(inv_freq, rope, keys))


def scaled_from_gguf(
    theta: float,
    rotary_dim: int,
    keys: Keys,
    source: WeightSource,
    context_length: int,
    *,
    yarn_truncate: bool = True,
    yarn_log_unit: float = 1.0,
) -> Scaled:
    """A decoder's frequencies by the `rope.scaling.*` keys and `rope_*` tensors of a GGUF file.

    Args:
        yarn_truncate: whether the ends of YaRN's ramp are whole numbers; a file does not say.
        yarn_log_unit: the configuration's mscale_all_dim for a `yarn_log_multiplier` of 1.

    Source: llama-arch.cpp and llama-context.cpp of llama.cpp.
    """
    inv_freq = inverse_frequencies(theta, rotary_dim)
    path = keys.path
    tensors = source.tensors
    if LONG_FACTORS in tensors:
        original = keys.integer("rope.scaling.original_context_length", maximum=MAX_CONTEXT)
        usual = _longrope_attention(max(1.0, context_length / original), original)
        return _longrope(
            inv_freq,
            source.dequantized(LONG_FACTORS).ravel().tolist(),
            source.dequantized(SHORT_FACTORS).ravel().tolist() if SHORT_FACTORS in tensors else (),
            keys.number("rope.scaling.attn_factor", default=usual),
            original,
            context_length,
        )
    if keys.values.get(keys.prefix + "rope.scaling.type") == "yarn":
        for name in ("yarn_attn_factor", "yarn_ext_factor"):
            if keys.has(f"rope.scaling.{name}") and keys.number(f"rope.scaling.{name}") != 1.0:
                raise UnsupportedModelError("rope scaling", f"yarn with {name}")
        factor = keys.number("rope.scaling.factor")
        trained = keys.number("rope.scaling.original_context_length", default=context_length)
        attention_factor = yarn_mscale(factor, 1.0)
        attention_factor *= keys.number("rope.scaling.attn_factor", default=1.0)
        if keys.has("rope.scaling.yarn_log_multiplier"):
            log_mul = keys.values[keys.prefix + "rope.scaling.yarn_log_multiplier"]
            if log_mul:  # with mscale 1
                log_mul = keys.number("rope.scaling.yarn_log_multiplier")
                attention_factor /= yarn_mscale(factor, yarn_log_unit * log_mul)
        ramp = _yarn_ramp(
            theta,
            rotary_dim,
            trained,
            keys.number("rope.scaling.yarn_beta_fast", default=32.0),
            keys.number("rope.scaling.yarn_beta_slow", default=1.0),
            truncate=yarn_truncate,
        )
        return Scaled(_interpolated(inv_freq, factor, ramp), attention_factor)
    inv_freq = scale_from_gguf(inv_freq, keys)
    if ROPE_FACTORS in tensors:
        inv_freq = divide(inv_freq, source.dequantized(ROPE_FACTORS).ravel().tolist(), path)
    return Scaled(inv_freq)


def _longrope(
    inv_freq: tuple[float, ...],
    long: Sequence[float],
    short: Sequence[float],
    attention_factor: float,
    original: int,
    context_length: int,
) -> Scaled:
    """Frequencies divided by one list of factors up to the original length and by another past it.

    A sequence keeps its frequencies while it grows, or its KV cache would be of two kinds: the
    length a model is run for decides.

    Source: Ding et al. 2024, arXiv:2402.13753, section 3.
    """
    short_inv_freq = divide(inv_freq, short, None)
    if context_length <= original:
        return Scaled(short_inv_freq, attention_factor)
    return Scaled(divide(inv_freq, long, None), attention_factor, short_inv_freq, original)


def _longrope_attention(factor: float, original: float) -> float:
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def yarn_mscale(factor: float, mscale: float) -> float:
    """Source: Peng et al. 2023, arXiv:2309.00071, equation 22; mscale as DeepSeek-V2 has it."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def _yarn_ramp(
    theta: float,
    rotary_dim: int,
    original: float,
    beta_fast: float,
    beta_slow: float,
    *,
    truncate: bool,
) -> tuple[float, ...]:
    """How much of each frequency is interpolated, 0 to 1.  Source: arXiv:2309.00071, section 3.2.

    Pairs that turn beta_fast times or more within the original length keep their frequency, those
    that turn beta_slow times or less are interpolated.
    """

    def pair_that_turns(times: float) -> float:
        return rotary_dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_that_turns(beta_fast), pair_that_turns(beta_slow)
    if truncate:
        low, high = float(math.floor(low)), float(math.ceil(high))
    low = max(low, 0.0)
    high = min(high, float(rotary_dim - 1))
    span = high - low if high != low else 0.001
    return tuple(min(1.0, max(0.0, (i - low) / span)) for i in range(rotary_dim // 2))


def _interpolated(
    inv_freq: tuple[float, ...], factor: float, ramp: tuple[float, ...]
) -> tuple[float, ...]:
    return tuple(f / factor * r + f * (1 - r) for f, r in zip(inv_freq, ramp, strict=True))


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
