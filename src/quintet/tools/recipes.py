"""Quantisation types by name, and which number format each gives to each tensor.

A type such as Q4_K_M is a recipe: most matrices get its base format, those that cost the most
quality get more bits (`tensor_rules`).  The recipes are llama.cpp's, so that a file is what its
name leads people to expect, in size too.

Source: src/llama-quant.cpp of ggml-org/llama.cpp (`tensor_allows_quantization`,
`tensor_type_fallback`), include/llama.h (`enum llama_ftype`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quintet.errors import RequestError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.weights import TensorInfo
from quintet.tools.tensor_rules import TensorRules

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
    rules = TensorRules(recipe.name, recipe.base, tensors, metadata, has_imatrix)
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
