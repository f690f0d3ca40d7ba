"""Quantisation types by name, and which number format each gives to each tensor.

A type such as Q4_K_M is a recipe: most matrices get its base format, those that cost the most
quality get more bits.  The recipes are llama.cpp's, so that a file is what its name leads people
to expect, in size too.

Source: src/llama-quant.cpp of ggml-org/llama.cpp (`llama_tensor_get_type_impl`,
`tensor_allows_quantization`, `tensor_type_fallback`), include/llama.h (`enum llama_ftype`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quintet.errors import RequestError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.weights import TensorInfo

T = GGMLType


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    A quantisation type.

    Args:
        name: as `--type` takes it.
        file_type: its `general.file_type`.
        base: what matrices get that have no rule of their own.
    """

    name: str
    file_type: int
    base: GGMLType


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("F32", 0, T.F32),
        Recipe("F16", 1, T.F16),
        Recipe("BF16", 32, T.BF16),
        Recipe("Q8_0", 7, T.Q8_0),
        Recipe("Q6_K", 18, T.Q6_K),
        Recipe("Q5_K_M", 17, T.Q5_K),
        Recipe("Q5_K_S", 16, T.Q5_K),
        Recipe("Q5_1", 9, T.Q5_1),
        Recipe("Q5_0", 8, T.Q5_0),
        Recipe("Q4_K_M", 15, T.Q4_K),
        Recipe("Q4_K_S", 14, T.Q4_K),
        Recipe("Q4_1", 3, T.Q4_1),
        Recipe("Q4_0", 2, T.Q4_0),
        Recipe("IQ4_NL", 25, T.IQ4_NL),
        Recipe("IQ4_XS", 30, T.IQ4_XS),
        Recipe("MXFP4_MOE", 38, T.MXFP4),
        Recipe("Q3_K_L", 13, T.Q3_K),
        Recipe("Q3_K_M", 12, T.Q3_K),
        Recipe("Q3_K_S", 11, T.Q3_K),
        Recipe("Q2_K", 10, T.Q2_K),
        Recipe("Q2_K_S", 21, T.Q2_K),
    )
}

# What people type for them, as llama-quantize takes it too.
_ALIASES = {
    "Q3_K": "Q3_K_M",
    "Q4_K": "Q4_K_M",
    "Q5_K": "Q5_K_M",
    "MXFP4": "MXFP4_MOE",
}

# Formats a single tensor may be given by name.
TENSOR_TYPES = tuple(dict.fromkeys(recipe.base for recipe in RECIPES.values()))

# Rows that are not whole blocks of the format on the left get the one on the right.
_FALLBACKS = {
    T.IQ4_XS: T.IQ4_NL,
    T.Q2_K: T.Q4_0,
    T.Q3_K: T.Q4_0,
    T.Q4_K: T.Q5_0,
    T.Q5_K: T.Q5_1,
    T.Q6_K: T.Q8_0,
}

# Matrices that stay as they are: small, or not what a matrix product reads.
_KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "attn_rel_b.weight",
)
_LAYER = re.compile(r"blk\.(\d+)\.")


def recipe_named(name: str) -> Recipe:
    """
    Raises:
        RequestError: no such type.
    """
    upper = name.upper()
    recipe = RECIPES.get(_ALIASES.get(upper, upper))
    if recipe is None:
        raise RequestError(
            f"expected one of {', '.join(RECIPES)}, found {name!r}", parameter="type"
        )
    return recipe


def tensor_type_named(name: str) -> GGMLType:
    """
    Raises:
        RequestError: no format that can be encoded to.
    """
    known = {ggml_type.name: ggml_type for ggml_type in TENSOR_TYPES}
    found = known.get(name.upper())
    if found is None:
        raise RequestError(
            f"expected one of {', '.join(known)}, found {name!r}", parameter="overrides"
        )
    return found


def choose_types(
    recipe: Recipe,
    tensors: Mapping[str, TensorInfo],
    metadata: Mapping[str, Any],
    *,
    overrides: Mapping[str, str] | None = None,
    has_imatrix: bool = False,
    pure: bool = False,
) -> dict[str, GGMLType]:
    """
    The number format of each tensor.

    Args:
        recipe: which.
        tensors: of the model, by GGUF name.
        metadata: GGUF metadata of the model.
        overrides: format name by regular expression; the first whose expression is found in a
            tensor's name counts.  They apply to what a recipe may quantise.
        has_imatrix: whether importances are known; IQ4 and Q4_0 recipes then differ.
        pure: the base format for every matrix.

    Raises:
        RequestError: an override that is no regular expression or names no format.
    """
    wanted = [
        (_compiled(pattern), tensor_type_named(name)) for pattern, name in (overrides or {}).items()
    ]
    rules = _Rules(recipe, tensors, metadata, has_imatrix)
    chosen = {}
    for name, info in tensors.items():
        if not is_quantizable(info):
            chosen[name] = info.ggml_type
            continue
        override = next((kind for pattern, kind in wanted if pattern.search(name)), None)
        if override is not None:
            kind = override
        elif pure or recipe.base.block_size == 1:
            kind = recipe.base
        else:
            kind = rules.choose(info)
        chosen[name] = fitting(kind, info.shape[-1])
    return chosen


def is_quantizable(info: TensorInfo) -> bool:
    """Whether a recipe may change this tensor's format."""
    name = info.name
    return (
        len(info.shape) >= 2
        and name.endswith("weight")
        and info.ggml_type not in (T.I8, T.I16, T.I32, T.I64, T.F64)
        and not any(part in name for part in _KEPT)
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise RequestError(
            f"{pattern!r} is no regular expression: {error}", parameter="overrides"
        ) from error


def fitting(kind: GGMLType, row: int) -> GGMLType:
    """`kind`, or a format whose blocks divide a row of so many weights."""
    if row % kind.block_size:
        kind = _FALLBACKS.get(kind, T.F16)
    return T.F16 if row % kind.block_size else kind


class _Rules:
    """What one recipe does with one model."""

    def __init__(
        self,
        recipe: Recipe,
        tensors: Mapping[str, TensorInfo],
        metadata: Mapping[str, Any],
        has_imatrix: bool,
    ) -> None:
        self._recipe = recipe.name
        self._base = recipe.base
        self._has_imatrix = has_imatrix
        architecture = str(metadata.get("general.architecture", ""))
        number = _numbers(metadata, architecture + ".")
        heads, kv_heads = number("attention.head_count", 1), number("attention.head_count_kv", 0)
        self._shares_heads = heads // (kv_heads or heads) >= 4
        self._num_experts = number("expert_count", 0)
        self._num_layers = number("block_count", 0)
        # llama.cpp goes by the size's name, which it tells by the layers.
        self._is_70b = architecture in ("llama", "qwen2") and self._num_layers == 80
        self._is_falcon = architecture == "falcon"
        self._is_tied = "output.weight" not in tensors
        # The place of each among its like, counted layer by layer as llama.cpp sorts them.
        self._attn_v = _places(name for name in tensors if _is_attn_v(name))
        self._ffn_down = _places(name for name in tensors if "ffn_down" in name)

    def choose(self, info: TensorInfo) -> GGMLType:
        """A quantised recipe's format of one tensor."""
        name = info.name
        if name == "output.weight" or (self._is_tied and _is_embedding(name)):
            return self._output(info)
        if self._recipe == "MXFP4_MOE":
            return T.MXFP4 if len(info.shape) == 3 and info.shape[0] > 1 else T.Q8_0
        if _is_embedding(name):
            return self._base
        if _is_attn_v(name):
            return self._value(name)
        if "attn_k.weight" in name:
            return T.Q8_0 if self._num_experts == 8 else self._base
        if "ffn_down" in name:
            return self._down(name)
        if "attn_output.weight" in name:
            return self._attention_output()
        return self._base

    def _output(self, info: TensorInfo) -> GGMLType:
        if self._recipe == "MXFP4_MOE" or self._is_falcon or self._base == T.Q8_0:
            return T.Q8_0
        return T.Q8_0 if info.shape[-1] % self._base.block_size else T.Q6_K

    def _value(self, name: str) -> GGMLType:
        place, count = self._attn_v[name], len(self._attn_v)
        kind = self._base
        match self._recipe:
            case "Q2_K":
                kind = T.Q4_K if self._shares_heads else T.Q3_K
            case "Q2_K_S" if self._shares_heads:
                kind = T.Q4_K
            case "Q3_K_M":
                kind = T.Q5_K if place < 2 else T.Q4_K
            case "Q3_K_L":
                kind = T.Q5_K
            case "IQ4_NL" | "IQ4_XS" if self._shares_heads:
                kind = T.Q5_K
            case "Q4_K_M" | "Q5_K_M" if _more_bits(place, count):
                kind = T.Q6_K
            case "Q4_K_S" if place < 4:
                kind = T.Q5_K
        if self._is_70b and kind in (T.Q3_K, T.Q4_K):
            kind = T.Q5_K  # eight heads share this matrix, so it is small
        return T.Q8_0 if self._num_experts == 8 else kind

    def _down(self, name: str) -> GGMLType:
        count = self._num_layers
        found = _LAYER.search(name)
        place = int(found[1]) if self._num_experts > 1 and found else self._ffn_down[name]
        match self._recipe:
            case "Q2_K":
                return T.Q3_K
            case "Q2_K_S" if place < count // 8:
                return T.Q4_K
            case "Q3_K_M":
                if place < count // 16:
                    return T.Q5_K
                keeps = self._is_falcon and not _more_bits(place, count)
                return T.Q3_K if keeps else T.Q4_K
            case "Q3_K_L":
                return T.Q4_K if self._is_falcon else T.Q5_K
            case "Q4_K_M" if self._is_falcon:
                if place < count // 16:
                    return T.Q6_K
                return T.Q5_K if _more_bits(place, count) else T.Q4_K
            case "Q4_K_M" | "Q5_K_M" if _more_bits(place, count):
                return T.Q6_K
            case "IQ4_NL" | "IQ4_XS" if place < count // 8 and not self._has_imatrix:
                return T.Q5_K
            case "Q4_K_S" if place < count // 8 and not self._is_falcon:
                return T.Q5_K
            case "Q4_0" if place < count // 8 and self._has_imatrix:
                return T.Q4_1
            case "Q5_0" if place < count // 8 and self._has_imatrix:
                return T.Q5_1
        return self._base

    def _attention_output(self) -> GGMLType:
        if self._is_falcon:
            return T.Q4_K if self._recipe == "Q3_K_L" else self._base
        if self._num_experts == 8:
            raised = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ4_XS")
            return T.Q5_K if self._recipe in raised else self._base
        raised_types = {"Q2_K": T.Q3_K, "Q3_K_M": T.Q4_K, "Q3_K_L": T.Q5_K}
        return raised_types.get(self._recipe, self._base)


def _numbers(metadata: Mapping[str, Any], prefix: str) -> Callable[[str, int], int]:
    """Whole numbers of the metadata; of one value per layer, the first."""

    def number(name: str, default: int) -> int:
        value = metadata.get(prefix + name, default)
        if not isinstance(value, int) and hasattr(value, "__len__") and len(value):
            value = value[0]
        try:
            return int(value)
        except (TypeError, ValueError):
            return default

    return number


def _more_bits(place: int, count: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    eighth = count // 8
    return place < eighth or place >= 7 * count // 8 or (place - eighth) % 3 == 2


def _is_attn_v(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _is_embedding(name: str) -> bool:
    return name in ("token_embd.weight", "per_layer_token_embd.weight")


def _places(names: Iterable[str]) -> dict[str, int]:
    def key(name: str) -> tuple[int, str]:
        found = _LAYER.search(name)
        return (int(found[1]) if found else -1, name)

    return {name: place for place, name in enumerate(sorted(names, key=key))}
