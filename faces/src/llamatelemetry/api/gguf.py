"""GGUF files, quantisation types, and what they need of memory."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from llamatelemetry.exceptions import ConfigurationError, ModelError
from quintet.errors import QuintetError
from quintet.hub.resolve import resolve
from quintet.tools.inspect import inspect_model

GIB = 2**30
T4_MEMORY_GB = 15.0  # what CUDA leaves of a T4's 16


class GGUFParser:
    """
    Reads what a model file says of itself; its weights stay where they are.

    Args:
        file_path: of a GGUF file, or a model's name.

    Raises:
        ModelError: there is no such file, or it is damaged.
    """

    def __init__(self, file_path: str | os.PathLike[str]) -> None:
        try:
            self._inspection = inspect_model(resolve(file_path))
        except QuintetError as error:
            raise ModelError(str(error)) from error

    def get_metadata(self) -> dict[str, Any]:
        """All keys and values."""
        return dict(self._inspection.metadata)

    def get_architecture(self) -> str:
        """E.g. "qwen3".

        Raises:
            ModelError: the file does not say.
        """
        return str(self._value("general.architecture"))

    def get_parameter_count(self) -> int:
        """Weights of all tensors together."""
        return self._inspection.num_parameters

    def get_quantization_type(self) -> str:
        """E.g. "Q4_K_M": as the file says, or else the format most of its weights have."""
        named = self._inspection.file_type
        if named is not None:
            return named.removesuffix("_MOE")
        counts: Counter[str] = Counter()
        for total in self._inspection.totals():
            counts[total.type] += total.num_parameters
        if not counts:
            raise ModelError("the file has no tensors")
        return counts.most_common(1)[0][0]

    def get_context_length(self) -> int:
        """Tokens the model was trained for.

        Raises:
            ModelError: the file does not say.
        """
        return int(self._value(f"{self.get_architecture()}.context_length"))

    def get_vocab_size(self) -> int:
        """Tokens there are.

        Raises:
            ModelError: the file does not say.
        """
        metadata = self._inspection.metadata
        tokens = metadata.get("tokenizer.ggml.tokens")
        if tokens is not None:
            return len(tokens)
        return int(self._value(f"{self.get_architecture()}.vocab_size"))

    def _value(self, key: str) -> Any:
        value = self._inspection.metadata.get(key)
        if value is None:
            raise ModelError(f"the file has no {key}")
        return value


@dataclass(frozen=True)
class QUANT_TYPE_INFO:  # noqa: N801 - the reference's name
    """
    A quantisation type.

    Args:
        name: e.g. "Q4_K_M".
        bits_per_weight: of a whole file; types that mix formats differ a little between models.
        description: what it is.
        recommended_for: when to choose it.
        vram_7b_gb: GiB that a model of 7e9 parameters takes with a context of 2048 tokens.
    """

    name: str
    bits_per_weight: float
    description: str
    recommended_for: str
    vram_7b_gb: float


def get_quantization_info(name: str) -> QUANT_TYPE_INFO:
    """
    What there is to know of a type, by its name in any case.

    Raises:
        ConfigurationError: there is none of that name.
    """
    info = _TYPES.get(name.upper())
    if info is None:
        raise ConfigurationError(f"expected one of {', '.join(_TYPES)}, found {name!r}")
    return info


def list_quantization_types() -> list[str]:
    """The names of all types, from few bits to many."""
    return list(_TYPES)


def estimate_vram(
    parameter_count: float, quantization: str = "Q4_K_M", context_size: int = 4096
) -> float:
    """
    GiB that a model takes: weights, KV cache in 16 bits, and buffers.

    The cache depends on the architecture, of which only the size is known here: it is what models
    with grouped-query attention have, 128 KiB per token at 8e9 parameters and 320 KiB at 70e9
    (Llama 3: 32 and 80 layers of 8 heads of 128).  Older models without it take four times that.

    Args:
        parameter_count: weights.
        quantization: a type's name.
        context_size: tokens.

    Raises:
        ConfigurationError: no such type, or a number below 0.
    """
    if parameter_count < 0 or context_size < 0:
        raise ConfigurationError("parameter_count, context_size: expected at least 0")
    return _vram(parameter_count, get_quantization_info(quantization).bits_per_weight, context_size)


def recommend_quantization(
    parameter_count: float, available_vram: float, context_size: int = 4096
) -> str:
    """
    The type with the most bits that leaves a tenth of the memory free.

    Args:
        parameter_count: weights.
        available_vram: GiB.
        context_size: tokens.

    Raises:
        ConfigurationError: none fits; says how much the smallest needs.
    """
    for name in _RECOMMENDED:
        needed = estimate_vram(parameter_count, name, context_size)
        if needed <= 0.9 * available_vram:
            return name
    raise ConfigurationError(
        f"expected {needed / 0.9:.1f} GB or more for {parameter_count / 1e9:.1f}B parameters "
        f"as {name}, found {available_vram} GB"
    )


@dataclass(frozen=True)
class RecommendedModel:
    """
    A model for a GPU.

    Args:
        name: its name.
        parameter_count: weights.
        quantization: the type to take.
        vram_gb: GiB it takes then, with a context of 4096 tokens.
    """

    name: str
    parameter_count: float
    quantization: str
    vram_gb: float


def kaggle_t4_recommended_models() -> list[RecommendedModel]:
    """Models that run well on one T4 of Kaggle's, each with the best type that fits."""
    models = []
    for name, parameter_count in _MODELS:
        quantization = recommend_quantization(parameter_count, T4_MEMORY_GB)
        vram_gb = round(estimate_vram(parameter_count, quantization), 1)
        models.append(RecommendedModel(name, parameter_count, quantization, vram_gb))
    return models


_MODELS = (
    ("Qwen3-0.6B", 0.6e9),
    ("Gemma-3-1B-it", 1.0e9),
    ("Llama-3.2-3B-Instruct", 3.2e9),
    ("Qwen3-4B-Instruct-2507", 4.0e9),
    ("Qwen3-8B", 8.2e9),
    ("Gemma-3-12B-it", 12.2e9),
    ("Qwen3-14B", 14.8e9),
)

_BUFFERS_GIB = 0.5
_KV_BYTES_AT_8B = 128 * 1024  # per token
_KV_EXPONENT = 0.42  # log(320 / 128) / log(70 / 8)


def _vram(parameter_count: float, bits_per_weight: float, context_size: int) -> float:
    weights = parameter_count * bits_per_weight / 8
    cache = context_size * _KV_BYTES_AT_8B * (parameter_count / 8e9) ** _KV_EXPONENT
    return (weights + cache) / GIB + _BUFFERS_GIB


# Bits per weight: tools/quantize/README.md of ggml-org/llama.cpp, measured on Llama 3.1 8B; of
# types that are one format, its block's size.
_TABLE = (
    ("IQ1_S", 2.0042, "1.6-bit codebook", "what fits nowhere otherwise; quality suffers much"),
    ("IQ1_M", 2.1460, "1.75-bit codebook", "what fits nowhere otherwise; quality suffers much"),
    ("IQ2_XXS", 2.3824, "2.06-bit codebook", "very large models in little memory"),
    ("IQ2_XS", 2.5882, "2.3-bit codebook", "very large models in little memory"),
    ("IQ2_S", 2.7403, "2.5-bit codebook", "very large models in little memory"),
    ("IQ2_M", 2.9294, "2.7-bit codebook", "very large models in little memory"),
    ("Q2_K_S", 2.9697, "2-bit, small mix", "very large models in little memory"),
    ("Q2_K", 3.1593, "2-bit, mixed with 3-bit", "the smallest of the fast types"),
    ("IQ3_XXS", 3.2548, "3.06-bit codebook", "large models in little memory"),
    ("IQ3_XS", 3.4977, "3.3-bit codebook", "large models in little memory"),
    ("Q3_K_S", 3.6429, "3-bit, small mix", "little memory"),
    ("IQ3_S", 3.6606, "3.4-bit codebook", "little memory"),
    ("IQ3_M", 3.7628, "3.7-bit codebook mix", "little memory"),
    ("Q3_K_M", 3.9960, "3-bit, medium mix", "little memory"),
    ("Q3_K_L", 4.2979, "3-bit, large mix", "little memory"),
    ("IQ4_XS", 4.4597, "4.25-bit, non-linear", "a little smaller than Q4_K_S, as good"),
    ("Q4_0", 4.5, "4-bit, one scale for 32", "the fastest on CPUs"),
    ("Q4_K_S", 4.6672, "4-bit, small mix", "everyday use where Q4_K_M does not fit"),
    ("IQ4_NL", 4.6818, "4-bit, non-linear", "models whose rows K types do not divide"),
    ("Q4_K_M", 4.8944, "4-bit, medium mix", "everyday use: the usual choice"),
    ("Q4_1", 5.0, "4-bit, scale and minimum for 32", "older programs"),
    ("Q5_0", 5.5, "5-bit, one scale for 32", "older programs"),
    ("Q5_K_S", 5.5704, "5-bit, small mix", "quality, with some memory to spare"),
    ("Q5_K_M", 5.7036, "5-bit, medium mix", "quality, with some memory to spare"),
    ("Q5_1", 6.0, "5-bit, scale and minimum for 32", "older programs"),
    ("Q6_K", 6.5633, "6-bit", "nearly what 8 bits give"),
    ("Q8_0", 8.5008, "8-bit, one scale for 32", "what cannot be told from 16 bits"),
    ("F16", 16.0, "half precision", "conversions and comparisons"),
    ("BF16", 16.0, "bfloat16, as most models are trained", "conversions and comparisons"),
    ("F32", 32.0, "single precision", "comparisons"),
)
_TYPES = {
    name: QUANT_TYPE_INFO(name, bits, description, use, round(_vram(7e9, bits, 2048), 1))
    for name, bits, description, use in _TABLE
}
_RECOMMENDED = (
    *("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_M", "IQ3_XXS"),
    *("Q2_K", "IQ2_M", "IQ2_XXS", "IQ1_S"),
)
