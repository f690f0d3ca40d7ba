"""One file of a repository, from wherever it is nearest: the store, a cache, the Hub."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quintet.errors import CapacityError, DownloadError
from quintet.hub import partial
from quintet.hub.blobs import hash_file, install
from quintet.hub.download import Retries, download
from quintet.hub.hf_cache import cached_file
from quintet.hub.repository import MAX_PLAIN_BYTES, RepoFile, Repository
from quintet.hub.store import Store
from quintet.hub.transport import Transport

_PROGRESS_S = 0.1
_WAIT_S = 0.2


@dataclass(frozen=True)
class PullProgress:
    """
    Where a pull is.

    Args:
        status: "pulling manifest", "pulling <12 digits>", "verifying sha256 digest",
            "writing manifest", "success": Ollama's words.
        digest: `sha256:...` of the file it is about.
        total, completed: bytes of that file.
    """

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Without what is not known."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Fetched:
    """Where a file is now, and the sha256 of its content."""

    path: Path
    digest: str


class Fetcher:
    """
    Gets the files of one repository.

    Attributes:
        fetched: those that it has got, by name.
    """

    def __init__(
        self, store: Store, transport: Transport, repository: Repository, retries: Retries
    ) -> None:
        self._store = store
        self._transport = transport
        self._repository = repository
        self._retries = retries
        self.fetched: dict[str, Fetched] = {}

    def missing_bytes(self, file: RepoFile) -> int:
        """What is still to be downloaded of a file."""
        if self._cached(file) is not None:
            return 0
        if file.sha256 is None:
            return file.size_bytes
        blob = self._store.blob_path(file.sha256)
        if _is_whole(blob, file):
            return 0
        return max(0, file.size_bytes - partial.progress(blob))

    def read_front(self, file: RepoFile, num_bytes: int) -> bytes:
        """The first bytes of a file; the rest is not waited for."""
        return self._retries.call(
            lambda: self._read(file, num_bytes, {"Range": f"bytes=0-{num_bytes - 1}"})
        )

    def fetch(self, file: RepoFile) -> Iterator[PullProgress]:
        """
        Get a file, checked; `fetched` has it afterwards.

        Raises:
            CapacityError: the disk is full.
            DownloadError: the hub cannot be reached, or sends what it should not.
        """
        blob = None if file.sha256 is None else self._store.blob_path(file.sha256)
        cached = None if blob is not None and _is_whole(blob, file) else self._cached(file)
        if cached is not None:
            yield _progress(file, file.size_bytes)
            yield PullProgress("verifying sha256 digest")
            digest = hash_file(cached)
            if digest == file.sha256 or (
                file.sha256 is None and _git_oid(cached.read_bytes()) == file.git_oid
            ):
                self.fetched[file.name] = Fetched(cached, digest)
                return
        if file.sha256 is None or blob is None:
            self.fetched[file.name] = self._fetch_plain(file)
            yield _progress(file, file.size_bytes)
        else:
            yield from self._fetch_blob(file, file.sha256, blob)
            self.fetched[file.name] = Fetched(blob, file.sha256)

    def _cached(self, file: RepoFile) -> Path | None:
        return cached_file(self._repository.repo, self._repository.commit, file)

    def _url(self, file: RepoFile) -> str:
        return self._repository.url(self._transport.endpoint, file)

    def _read(self, file: RepoFile, max_bytes: int, headers: dict[str, str]) -> bytes:
        content = b""
        with self._transport.open(self._url(file), headers) as answer:
            for chunk in answer.body():
                content += chunk
                if len(content) >= max_bytes:
                    break
        return content[:max_bytes]

    def _fetch_plain(self, file: RepoFile) -> Fetched:
        """A small file that the repository keeps as it is; git's id vouches for it."""
        if file.size_bytes > MAX_PLAIN_BYTES or file.git_oid is None:
            raise DownloadError(
                f"{self._repository.repo}: {file.path}: expected a sha256 for a file of "
                f"{file.size_bytes:,} bytes"
            )

        # One more, to notice what is too long.
        content = self._retries.call(lambda: self._read(file, file.size_bytes + 1, {}))
        if len(content) != file.size_bytes or _git_oid(content) != file.git_oid:
            raise DownloadError(f"{self._repository.repo}: {file.path} is not what its commit has")
        digest = hashlib.sha256(content).hexdigest()
        path = self._store.blob_path(digest)
        if not _is_whole(path, file):
            self._store.add_blob(digest, [content])
        return Fetched(path, digest)

    def _fetch_blob(self, file: RepoFile, digest: str, blob: Path) -> Iterator[PullProgress]:
        """Put a file into the store, or wait until somebody else has."""
        self._store.make_blob_folder()
        lock = self._store.lock(blob.name)
        while not _is_whole(blob, file) and not lock.try_acquire():
            yield _progress(file, partial.progress(blob))
            self._retries.sleep(_WAIT_S)
        try:
            if _is_whole(blob, file):
                yield _progress(file, file.size_bytes)
                return
            with partial.claimed(blob) as path:
                yield from self._download(file, digest, path)
                install(path, blob)
        finally:
            lock.release()

    def _download(self, file: RepoFile, digest: str, path: Path) -> Iterator[PullProgress]:
        url = self._url(file)
        for attempt in (1, 2):
            last_s = -_PROGRESS_S
            pieces = download(self._transport, url, path, file.size_bytes, self._retries)
            try:
                for completed in pieces:
                    if time.monotonic() - last_s >= _PROGRESS_S:
                        last_s = time.monotonic()
                        yield _progress(file, completed)
            except CapacityError:
                path.unlink()  # others on this machine need the room more
                raise
            finally:
                pieces.close()
            yield _progress(file, file.size_bytes)
            yield PullProgress("verifying sha256 digest")
            # What is on the disk is what will be run: the hash is of that, not of the stream.
            found = hash_file(path)
            if found == digest:
                return
            path.unlink()
            if attempt == 2:
                raise DownloadError(
                    f"{self._repository.repo}: {file.path}: expected sha256 {digest}, found {found}"
                )


def _is_whole(blob: Path, file: RepoFile) -> bool:
    """A blob of another size was damaged later; it is fetched again."""
    try:
        return blob.stat().st_size == file.size_bytes
    except FileNotFoundError:
        return False


def _progress(file: RepoFile, completed: int) -> PullProgress:
    key = file.sha256 or file.git_oid or ""
    digest = f"sha256:{file.sha256}" if file.sha256 else None
    return PullProgress(f"pulling {key[:12]}", digest, file.size_bytes, completed)


def _git_oid(content: bytes) -> str:
    """Source: Pro Git, "Git Internals - Git Objects"."""
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
