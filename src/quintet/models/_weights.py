"""Weights under GGUF names, whatever their file calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from quintet.formats.weights import SourceIdentity, TensorInfo, WeightSource


class RenamedWeights:
    """A view of `source` with GGUF tensor names; a tensor without one keeps its own.

    Args:
        names: GGUF name to the source's name, `{i}` standing for a layer number.
        prefix: of the source's names, which it may leave out.
    """

    def __init__(self, source: WeightSource, names: Mapping[str, str], prefix: str = "") -> None:
        self._source = source
        patterns = [
            (re.compile(re.escape(theirs).replace(r"\{i\}", r"(\d+)")), ours)
            for ours, theirs in names.items()
        ]
        self._names: dict[str, str] = {}
        for theirs in source.tensors:
            ours = theirs
            for pattern, name in patterns:
                if match := pattern.fullmatch(theirs) or pattern.fullmatch(prefix + theirs):
                    ours = name.replace("{i}", match.group(1)) if match.groups() else name
                    break
            self._names[ours] = theirs
        self._tensors: Mapping[str, TensorInfo] = {
            ours: source.tensors[theirs] for ours, theirs in self._names.items()
        }

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    @property
    def identity(self) -> SourceIdentity:
        return self._source.identity

    @property
    def is_mapped(self) -> bool:
        return self._source.is_mapped

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        return self._source.raw(self._names[name])

    def dequantized(self, name: str) -> npt.NDArray[np.float32]:
        return self._source.dequantized(self._names[name])

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> RenamedWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
