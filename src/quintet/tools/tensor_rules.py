"""Which matrices of a model a quantisation recipe gives more bits, or fewer.

The rules are llama.cpp's, by the names of tensors and their places among their like.

Source: src/llama-quant.cpp of ggml-org/llama.cpp (`llama_tensor_get_type_impl`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from quintet.formats.ggml_types import GGMLType
from quintet.formats.weights import TensorInfo

T = GGMLType

_LAYER = re.compile(r"blk\.(\d+)\.")


class TensorRules:
    """
    What one recipe does with one model.

    Args:
        recipe: a name of `recipes.RECIPES`.
        base: its base format.
        tensors: of the model, by GGUF name.
        metadata: GGUF metadata of the model.
        has_imatrix: whether importances are known.
    """

    def __init__(
        self,
        recipe: str,
        base: GGMLType,
        tensors: Mapping[str, TensorInfo],
        metadata: Mapping[str, Any],
        has_imatrix: bool,
    ) -> None:
        self._recipe = recipe
        self._base = base
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
