"""A file opened once and mapped read-only."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from quintet.formats.read_file import ReadFile, identity_of, open_regular


class MappedFile:
    """
    The bytes of a regular file, as they were sized when it was opened.

    The file is opened once and measured through that descriptor, so a name that is replaced
    meanwhile changes nothing.  Truncating the file itself while it is mapped kills the process
    that reads the lost pages; keep model files immutable.

    Attributes:
        path: as given.
        size: bytes.
        identity: see `identity_of`.

    Raises:
        ModelNotFoundError, ModelFormatError: as for `open_regular`.
    """

    is_mapped = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._bytes: npt.NDArray[np.uint8] | None = None
        descriptor, status = open_regular(self.path)
        self.size = status.st_size
        self.identity = identity_of(status)
        try:
            mapping = mmap.mmap(descriptor, self.size, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        self._bytes = np.frombuffer(mapping, dtype=np.uint8)

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """All of the file: a read-only [size] uint8 view, which keeps the mapping alive."""
        if self._bytes is None:
            raise ValueError(f"{self.path} is closed")
        return self._bytes

    def head(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """At least the first `num_bytes` bytes, or all there are."""
        return self.bytes

    def read(self, offset: int, num_bytes: int) -> npt.NDArray[np.uint8]:
        """[num_bytes] uint8, read-only: a view of what is at `offset`."""
        return self.bytes[offset : offset + num_bytes]

    def close(self) -> None:
        """Let go of the mapping; it ends when the last view of it does.  Safe to call twice."""
        self._bytes = None


ModelFile: TypeAlias = MappedFile | ReadFile


def open_model_file(path: str | os.PathLike[str], *, use_mmap: bool) -> ModelFile:
    """A model's file, mapped or read piece by piece.

    Raises:
        ModelNotFoundError, ModelFormatError: as for `open_regular`.
    """
    return MappedFile(path) if use_mmap else ReadFile(path)
