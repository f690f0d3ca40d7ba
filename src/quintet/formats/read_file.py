"""A file read piece by piece, for where a memory map is not wanted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError, ModelNotFoundError


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file with something in it, and what the system says of it.

    Raises:
        ModelNotFoundError: no such file, not a regular file, or not readable.
        ModelFormatError: the file is empty.
    """
    try:
        # Non-blocking: opening a FIFO must not wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelNotFoundError(f"cannot open {path}: {reason}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelNotFoundError(f"{path} is not a regular file")
        if status.st_size == 0:
            raise ModelFormatError("expected a model file, found no bytes", path=path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def identity_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """What changes when a file is replaced or written to: device, inode, bytes, time in ns."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class ReadFile:
    """
    The bytes of a regular file, copied out of it when they are asked for.

    As `MappedFile`, but a file that is truncated meanwhile is an error, not the end of the process.

    Attributes:
        path: as given.
        size: bytes, when it was opened.
        identity: see `identity_of`.

    Raises:
        ModelNotFoundError, ModelFormatError: as for `open_regular`.
    """

    is_mapped = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._descriptor, status = open_regular(self.path)
        self.size = status.st_size
        self.identity = identity_of(status)

    def head(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """At least the first `num_bytes` bytes, or all there are."""
        return self.read(0, min(num_bytes, self.size))

    def read(self, offset: int, num_bytes: int) -> npt.NDArray[np.uint8]:
        """[num_bytes] uint8, read-only: a copy of what is at `offset`.

        Raises:
            ModelFormatError: the file ends before.
            ValueError: the file is closed.
        """
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed")
        data = np.empty(num_bytes, np.uint8)
        view = data.data
        done = 0
        while done < num_bytes:
            got = os.preadv(self._descriptor, [view[done:]], offset + done)
            if got == 0:
                raise ModelFormatError(
                    f"expected {num_bytes} bytes, found {done}: the file was cut off meanwhile",
                    path=self.path,
                    offset=offset,
                )
            done += got
        data.flags.writeable = False
        return data

    def close(self) -> None:
        """Close the file.  Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()
