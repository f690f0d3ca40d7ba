"""Weights that a file has in other shapes than a program reads, made of those on reading."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.weights import SourceIdentity, TensorInfo, WeightSource


@dataclass(frozen=True)
class Derived:
    """A tensor made of others.

    Args:
        parts: what it replaces.
        raw: its bytes, of `info.ggml_type`.
    """

    info: TensorInfo
    parts: tuple[str, ...]
    raw: Callable[[], npt.NDArray[np.uint8]]
    dequantized: Callable[[], npt.NDArray[np.float32]]


def floats(
    name: str,
    shape: tuple[int, ...],
    parts: tuple[str, ...],
    values: Callable[[], npt.NDArray[Any]],
) -> Derived:
    """A tensor in float32, of values that are made when they are asked for."""

    def dequantized() -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(values(), np.float32)

    info = TensorInfo(name, shape, GGMLType.F32, 4 * math.prod(shape))
    return Derived(info, parts, lambda: dequantized().reshape(-1).view(np.uint8), dequantized)


class DerivedWeights:
    """A view of `source` in which some tensors are made of others.

    Args:
        without: tensors that the view leaves out.
    """

    def __init__(
        self, source: WeightSource, derived: Iterable[Derived], *, without: Iterable[str] = ()
    ) -> None:
        self._source = source
        self._derived = {tensor.info.name: tensor for tensor in derived}
        replaced = {part for tensor in self._derived.values() for part in tensor.parts}
        replaced.update(without)
        kept = {name: info for name, info in source.tensors.items() if name not in replaced}
        self._tensors = {**kept, **{name: d.info for name, d in self._derived.items()}}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    @property
    def identity(self) -> SourceIdentity:
        return self._source.identity

    @property
    def is_mapped(self) -> bool:
        return self._source.is_mapped and not self._derived

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        if name in self._derived:
            return self._derived[name].raw()
        return self._source.raw(name)

    def dequantized(self, name: str) -> npt.NDArray[np.float32]:
        if name in self._derived:
            return self._derived[name].dequantized()
        return self._source.dequantized(name)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> DerivedWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def norms_plus_one(source: WeightSource) -> WeightSource:
    """Norms that scale by 1 + weight, as GGUF has them: with the 1 added."""

    def plus_one(name: str, shape: tuple[int, ...]) -> Derived:
        def values() -> npt.NDArray[np.float32]:
            return source.dequantized(name) + np.float32(1)

        info = TensorInfo(name, shape, GGMLType.F32, 4 * math.prod(shape))
        return Derived(info, (name,), lambda: values().view(np.uint8), values)

    return DerivedWeights(
        source,
        [
            plus_one(name, info.shape)
            for name, info in source.tensors.items()
            if name.endswith("norm.weight")
        ],
    )


_EXPERT = re.compile(r"(blk\.\d+\.ffn_(?:gate|up|down)_exps)\.(\d+)\.weight")


def stacked_experts(source: WeightSource) -> WeightSource:
    """`blk.{i}.ffn_*_exps.{e}.weight` of one shape and type, as one tensor [num_experts, ...].

    Raises:
        ModelFormatError: experts of one layer that are numbered with gaps or differ.
    """
    stacks: dict[str, dict[int, str]] = {}
    for name in source.tensors:
        if match := _EXPERT.fullmatch(name):
            stacks.setdefault(match.group(1), {})[int(match.group(2))] = name

    def stack(name: str, experts: dict[int, str]) -> Derived:
        names = [experts[i] for i in sorted(experts)]
        first = source.tensors[names[0]]
        kinds = {(source.tensors[n].shape, source.tensors[n].ggml_type) for n in names}
        if sorted(experts) != list(range(len(experts))) or len(kinds) != 1:
            raise ModelFormatError("expected experts 0, 1, ... of one shape and type", part=name)
        info = TensorInfo(
            f"{name}.weight",
            (len(names), *first.shape),
            first.ggml_type,
            first.num_bytes * len(names),
        )
        return Derived(
            info,
            tuple(names),
            lambda: np.concatenate([source.raw(n) for n in names]),
            lambda: np.stack([source.dequantized(n) for n in names]),
        )

    return DerivedWeights(source, [stack(name, experts) for name, experts in stacks.items()])
