"""What models and backends read weights from, whichever kind of file they came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from quintet.formats.ggml_types import GGMLType

_Source = TypeVar("_Source", bound="WeightSource")


@dataclass(frozen=True)
class TensorInfo:
    """
    What a file says about one tensor.

    Attributes:
        name: as the file spells it.
        shape: NumPy order, so a linear weight is (out_features, in_features).
        ggml_type: its number format.
        num_bytes: what its data takes in the file.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: GGMLType
    num_bytes: int


@dataclass(frozen=True)
class TensorEntry:
    """A tensor and where its data starts, in bytes from the start of its file."""

    info: TensorInfo
    offset: int


class WeightSource(Protocol):
    """Named tensors in an open file or set of files; a context manager."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in file order."""

    @property
    def is_mapped(self) -> bool:
        """Whether `raw` gives views of memory-mapped files, rather than copies."""

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """
        The tensor's bytes as stored: [num_bytes] uint8, read-only.

        A view of the mapping keeps it alive, even after `close`.

        Raises:
            KeyError: no tensor of that name.
            ValueError: the source is closed.
        """

    def dequantized(self, name: str) -> npt.NDArray[np.float32]:
        """
        The tensor's values: a fresh float32 array of `TensorInfo.shape`.

        Raises:
            KeyError: no tensor of that name.
            ValueError: the source is closed.
            UnsupportedModelError: a number format that cannot be read.
        """

    def close(self) -> None:
        """Let go of the mapping; safe to call twice."""

    def __enter__(self: _Source) -> _Source: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
