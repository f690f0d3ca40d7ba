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
        names: GGUF name to the source's name, `{i}` standing for the number of a layer and `{e}`
            for that of an expert.
        prefix: of the source's names, which it may leave out.
        nested: how the source's names may begin instead, and what that stands for.
    """

    def __init__(
        self,
        source: WeightSource,
        names: Mapping[str, str],
        prefix: str = "",
        nested: Mapping[str, str] | None = None,
    ) -> None:
        self._source = source
        patterns = [(_pattern(theirs), ours) for ours, theirs in names.items()]
        self._names: dict[str, str] = {}
        for theirs in source.tensors:
            ours = theirs
            plain = theirs
            for begin, replacement in (nested or {}).items():
                if theirs.startswith(begin):
                    plain = replacement + theirs.removeprefix(begin)
                    break
            for pattern, name in patterns:
                if match := pattern.fullmatch(plain) or pattern.fullmatch(prefix + plain):
                    ours = name.format(**match.groupdict())
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


def _pattern(name: str) -> re.Pattern[str]:
    pattern = re.escape(name)
    for number in ("i", "e"):
        pattern = pattern.replace(rf"\{{{number}\}}", rf"(?P<{number}>\d+)")
    return re.compile(pattern)
