"""A file opened once and mapped read-only."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError, ModelNotFoundError


class MappedFile:
    """
    The bytes of a regular file, as they were sized when it was opened.

    The file is opened once and measured through that descriptor, so a name that is replaced
    meanwhile changes nothing.  Truncating the file itself while it is mapped kills the process
    that reads the lost pages; keep model files immutable.

    Attributes:
        path: as given.
        size: bytes.

    Raises:
        ModelNotFoundError: no such file, not a regular file, or not readable.
        ModelFormatError: the file is empty.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._bytes: npt.NDArray[np.uint8] | None = None
        try:
            # Non-blocking: opening a FIFO must not wait for somebody to write to it.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ModelNotFoundError(f"cannot open {self.path}: {reason}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelNotFoundError(f"{self.path} is not a regular file")
            self.size = status.st_size
            if self.size == 0:
                raise ModelFormatError("expected a model file, found no bytes", path=self.path)
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

    def close(self) -> None:
        """Let go of the mapping; it ends when the last view of it does.  Safe to call twice."""
        self._bytes = None
