"""What models and backends read weights from, whichever kind of file they came in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True)
class SourceIdentity:
    """
    Which files a source reads.

    Attributes:
        paths: the files, absolute, in order.
        digest: changes whenever a file is replaced or written to (device, inode, size and time of
            change), and with the tensors' names, types, shapes and offsets.
    """

    paths: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, files: Sequence[IdentifiedFile], entries: Iterable[TensorEntry]) -> SourceIdentity:
        """The identity of open files with these tensors."""
        facts = ([file.identity for file in files], list(entries))
        return cls(
            tuple(os.path.realpath(file.path) for file in files),
            hashlib.sha256(repr(facts).encode()).hexdigest(),
        )


class IdentifiedFile(Protocol):
    """An open file that knows what it was when it was opened."""

    path: Path
    identity: tuple[int, int, int, int]


class WeightSource(Protocol):
    """Named tensors in an open file or set of files; a context manager."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in file order."""

    @property
    def identity(self) -> SourceIdentity:
        """Which files these are."""

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
