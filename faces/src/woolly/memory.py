"""Memory mapping of model files.

Source: Linux manual, mmap(2) and madvise(2).
"""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from woolly.errors import InvalidRequest, ModelNotFound, OutOfMemory


@dataclass(frozen=True)
class MmapConfig:
    """
    How a file is mapped.

    Args:
        enabled: map it; otherwise it is read where needed.
        prefetch: have the kernel read it ahead.
        huge_pages: ask for large pages, where the file system has them, and for memory.
    """

    enabled: bool = True
    prefetch: bool = False
    huge_pages: bool = False


@runtime_checkable
class MemoryBackend(Protocol):
    """Where memory comes from, and a model's bytes."""

    def allocate(self, size: int) -> memoryview:
        """This many bytes of zeros."""

    def deallocate(self, ptr: memoryview, size: int) -> None:
        """Give back what `allocate` gave."""

    def read(self, offset: int, buf: bytearray | memoryview) -> None:
        """Fill a buffer with what is at an offset."""


class MappedFile:
    """
    A file as a MemoryBackend; a context manager.

    Args:
        path: of the file.
        config: how it is mapped.

    Raises:
        ModelNotFound: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], config: MmapConfig | None = None) -> None:
        self.config = config or MmapConfig()
        self._allocated: dict[int, mmap.mmap] = {}
        self._map: mmap.mmap | None = None
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - `close` closes it
        except OSError as error:
            raise ModelNotFound(f"{os.fspath(path)}: {error.strerror}") from error
        self.size = os.fstat(self._file.fileno()).st_size
        if self.config.enabled and self.size:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            if self.config.prefetch:
                self._map.madvise(mmap.MADV_WILLNEED)
            if self.config.huge_pages:
                _ask_for_huge_pages(self._map)

    def allocate(self, size: int) -> memoryview:
        """This many bytes of zeros.

        Raises:
            InvalidRequest: none or fewer are asked for.
            OutOfMemory: there are not as many.
        """
        if size < 1:
            raise InvalidRequest(f"size: expected at least 1 byte, found {size}")
        try:
            memory = mmap.mmap(-1, size)
        except (OSError, ValueError, OverflowError) as error:
            raise OutOfMemory(f"need {size} bytes", needed=size) from error
        if self.config.huge_pages:
            _ask_for_huge_pages(memory)
        view = memoryview(memory)
        self._allocated[id(view)] = memory
        return view

    def deallocate(self, ptr: memoryview, size: int) -> None:
        """Give back what `allocate` gave.

        Raises:
            InvalidRequest: it did not, or not of this size.
        """
        memory = self._allocated.get(id(ptr))
        if memory is None or len(memory) != size:
            raise InvalidRequest(f"expected memory of {size} bytes that allocate gave")
        del self._allocated[id(ptr)]
        ptr.release()
        memory.close()

    def read(self, offset: int, buf: bytearray | memoryview) -> None:
        """Fill a buffer with what is at an offset.

        Raises:
            InvalidRequest: the file does not reach so far.
        """
        length = len(buf)
        if offset < 0 or offset + length > self.size:
            raise InvalidRequest(
                f"expected bytes below {self.size}, found {offset} to {offset + length}"
            )
        if self._map is not None:
            buf[:] = self._map[offset : offset + length]
            return
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) != length:
            raise InvalidRequest(f"the file was cut to less than {offset + length} bytes")
        buf[:] = data

    def close(self) -> None:
        """Let go of the file.  Idempotent."""
        if self._map is not None:
            self._map.close()
            self._map = None
        self._file.close()

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ask_for_huge_pages(memory: mmap.mmap) -> None:
    with contextlib.suppress(OSError):  # a kernel without them: it was a wish
        memory.madvise(mmap.MADV_HUGEPAGE)
