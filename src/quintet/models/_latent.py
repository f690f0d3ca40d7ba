"""The matrices that make keys and values of DeepSeek's latent, in GGUF's two forms: one matrix for
both, or one for each with the keys' transposed, which attention on the latent itself reads.

Source: DeepSeek-V2, arXiv:2405.04434, section 2.1; conversion/deepseek.py of llama.cpp.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.weights import TensorInfo, WeightSource
from quintet.models._config import Config
from quintet.models._derived import Derived, DerivedWeights, floats


def as_matrices(source: WeightSource) -> WeightSource:
    """`attn_k_b` [heads, rank, columns] and `attn_v_b` [heads, columns, rank], which newer files
    have instead of `attn_kv_b`, as matrices [heads * columns, rank]."""
    derived = []
    for name, info in source.tensors.items():
        if len(info.shape) != 3 or not name.endswith((".attn_k_b.weight", ".attn_v_b.weight")):
            continue
        heads, a, b = info.shape
        if name.endswith(".attn_v_b.weight"):
            derived.append(_flat(source, info, (heads * a, b)))
        else:
            derived.append(_transposed(source, info, (heads * b, a)))
    return DerivedWeights(source, derived) if derived else source


def _flat(source: WeightSource, info: TensorInfo, shape: tuple[int, int]) -> Derived:
    return Derived(
        TensorInfo(info.name, shape, info.ggml_type, info.num_bytes),
        (info.name,),
        lambda: source.raw(info.name),
        lambda: source.dequantized(info.name).reshape(shape),
    )


def _transposed(source: WeightSource, info: TensorInfo, shape: tuple[int, int]) -> Derived:
    def values() -> npt.NDArray[np.float32]:
        swapped = source.dequantized(info.name).swapaxes(1, 2)
        return np.ascontiguousarray(swapped).reshape(shape)

    return Derived(
        TensorInfo(info.name, shape, GGMLType.F32, 4 * math.prod(shape)),
        (info.name,),
        lambda: values().view(np.uint8).ravel(),
        values,
    )


def split(source: WeightSource, config: Config) -> WeightSource:
    """`attn_kv_b` as `attn_k_b` [heads, rank, columns] and `attn_v_b` [heads, columns, rank]."""
    values = config.value_head_dim
    plain = config.head_dim - 2 * len(config.rope_inv_freq)
    derived = []
    for name, info in source.tensors.items():
        if not name.endswith(".attn_kv_b.weight"):
            continue
        block = name.removesuffix("attn_kv_b.weight")
        rows = config.num_heads * (plain + values)
        if info.shape[0] != rows:
            raise ModelFormatError(
                f"expected {rows} rows, {plain + values} of each head, found {info.shape[0]}",
                part=name,
            )

        def heads(name: str = name, rank: int = info.shape[1]) -> npt.NDArray[np.float32]:
            return source.dequantized(name).reshape(config.num_heads, plain + values, rank)

        def keys(heads: Any = heads) -> npt.NDArray[np.float32]:
            return np.ascontiguousarray(heads()[:, :plain].swapaxes(1, 2))

        def last(heads: Any = heads) -> npt.NDArray[np.float32]:
            return np.ascontiguousarray(heads()[:, plain:])

        for part, shape, make in (
            ("attn_k_b", (config.num_heads, info.shape[1], plain), keys),
            ("attn_v_b", (config.num_heads, values, info.shape[1]), last),
        ):
            derived.append(floats(f"{block}{part}.weight", shape, (name,), make))
    return DerivedWeights(source, derived)
