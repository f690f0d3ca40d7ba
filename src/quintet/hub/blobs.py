"""Files named after their content: written once, checked, then never changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType

from quintet.errors import RequestError
from quintet.hub import files


def hash_file(path: Path) -> str:
    """Sha256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


class BlobWriter:
    """
    A blob on its way into the store; a context manager that leaves nothing behind on failure.

    Args:
        path: where the blob will be.
        digest: sha256 that its content must have, 64 hexadecimal digits.
        max_bytes: it may have.

    The methods raise RequestError for what is wrong with the content, and CapacityError when
    the disk is full.
    """

    def __init__(self, path: Path, digest: str, max_bytes: int) -> None:
        self._path = path
        self._digest = digest
        self._max_bytes = max_bytes
        self._temporary = files.temporary_name(path)
        self._hash = hashlib.sha256()
        self._num_bytes = 0
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = open(descriptor, "wb", buffering=0)  # noqa: SIM115 - closed by __exit__

    def write(self, chunk: bytes) -> None:
        """Append a piece of the content."""
        self._num_bytes += len(chunk)
        if self._num_bytes > self._max_bytes:
            raise RequestError(
                f"expected at most {self._max_bytes:,} bytes, found more", parameter="digest"
            )
        with files.full_disk_said(self._path.parent, self._num_bytes):
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]
        self._hash.update(chunk)

    def commit(self) -> Path:
        """Check the whole and give it its name."""
        found = self._hash.hexdigest()
        if found != self._digest:
            raise RequestError(
                f"expected content with sha256 {self._digest}, found {found} "
                f"({self._num_bytes:,} bytes)",
                parameter="digest",
            )
        self._file.close()
        install(self._temporary, self._path)
        return self._path

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def install(temporary: Path, path: Path) -> None:
    """A checked file becomes a blob: read-only, since a mapped model must not change."""
    os.chmod(temporary, 0o444)
    files.settle(temporary, path)
