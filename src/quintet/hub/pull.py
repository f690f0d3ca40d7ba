"""Downloading a model into the store, with progress that a terminal and a client can show."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quintet.errors import CapacityError, DownloadError, ModelNotFoundError
from quintet.hub import partial, space
from quintet.hub.blobs import hash_file, install
from quintet.hub.download import PATIENT, Retries, download
from quintet.hub.gguf_front import FRONT_BYTES, kv_cache_bytes
from quintet.hub.hf_cache import cached_file
from quintet.hub.manifest import Manifest, ModelFile, canonical_name
from quintet.hub.names import download_name, hub_source
from quintet.hub.repository import (
    MAX_PLAIN_BYTES,
    RepoFile,
    Repository,
    choose_files,
    read_repository,
)
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


def pull(
    name: str,
    *,
    store: Store | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    is_forced: bool = False,
    retries: Retries = PATIENT,
) -> Iterator[PullProgress]:
    """
    Download a model and store it under its name.

    What was downloaded before is used: blobs of the store, the Hugging Face cache, the first
    part of a download that was cut.  Every file is checked against its sha256.  Several
    processes that pull the same file share one download.  Closing the generator stops it.

    Args:
        name: see `hub_source`.
        store: None: the user's.
        endpoint, token: see `Transport`.
        is_forced: also what will not fit into this machine's memory.
        retries: of interrupted transfers.

    Raises:
        RequestError: it is no name.
        ModelNotFoundError: there is no such model.
        CapacityError: it will not fit into the memory or on the disk.
        DownloadError: the hub cannot be reached, or sends what it should not.
    """
    source = hub_source(name)
    yield PullProgress("pulling manifest")
    store = Store() if store is None else store
    store.prune()
    with Transport(endpoint, token) as transport:
        puller = _Puller(store, transport, retries)
        repository = retries.call(lambda: read_repository(transport, source.repo))
        chosen = choose_files(repository, source.quant)
        if not is_forced:
            puller.check_memory(repository, chosen, name)
        puller.check_disk(repository, chosen, name)
        for attempt in (1, 2):
            paths: dict[str, Path] = {}
            for file in chosen:
                yield from puller.fetch(repository, file, paths)
            yield PullProgress("writing manifest")
            try:
                puller.save(download_name(name), str(source), repository, chosen, paths)
                break
            except ModelNotFoundError:  # somebody removed a model that had the same file
                if attempt == 2:
                    raise
    yield PullProgress("success")


class _Puller:
    """The parts that a pull is made of, with what they have in common."""

    def __init__(self, store: Store, transport: Transport, retries: Retries) -> None:
        self._store = store
        self._transport = transport
        self._retries = retries
        self._digests: dict[str, str] = {}  # by file name

    def check_memory(self, repository: Repository, chosen: list[RepoFile], name: str) -> None:
        """Refuse what this machine cannot hold.  The KV cache counts only where it is close."""
        weight_bytes = sum(file.size_bytes for file in chosen)
        kv_bytes = 0
        if weight_bytes > space.total_memory_bytes() // 4:
            kv_bytes = kv_cache_bytes(
                self._retries.call(lambda: self._front(repository, chosen[0]))
            )
        space.check_memory(weight_bytes, kv_bytes, name)

    def _front(self, repository: Repository, file: RepoFile) -> bytes:
        """The first bytes of a file; the rest is not waited for."""
        front = b""
        url = repository.url(self._transport.endpoint, file)
        with self._transport.open(url, {"Range": f"bytes=0-{FRONT_BYTES - 1}"}) as answer:
            for chunk in answer.body():
                front += chunk
                if len(front) >= FRONT_BYTES:
                    break
        return front[:FRONT_BYTES]

    def check_disk(self, repository: Repository, chosen: list[RepoFile], name: str) -> None:
        """Refuse what the disk has no room for, counting only what is still to come."""
        missing = 0
        for file in chosen:
            blob = self._store.blob_path(file.sha256) if file.sha256 else None
            if cached_file(repository.repo, repository.commit, file) is None:
                there = 0 if blob is None else blob.is_file() * file.size_bytes
                there = there or (0 if blob is None else partial.progress(blob))
                missing += max(0, file.size_bytes - there)
        space.check_disk(missing, self._store.root, name)

    def fetch(
        self, repository: Repository, file: RepoFile, paths: dict[str, Path]
    ) -> Iterator[PullProgress]:
        """Get one file from wherever it is nearest; notes its path under its name."""
        cached = cached_file(repository.repo, repository.commit, file)
        if cached is not None:
            yield _progress(file, file.size_bytes)
            yield PullProgress("verifying sha256 digest")
            digest = hash_file(cached)
            if digest == file.sha256 or (
                file.sha256 is None and _git_oid(cached.read_bytes()) == file.git_oid
            ):
                self._note(file, digest)
                paths[file.name] = cached
                return
        if file.sha256 is None:
            paths[file.name] = self._fetch_plain(repository, file)
            yield _progress(file, file.size_bytes)
            return
        yield from self._fetch_blob(repository, file, file.sha256)
        self._note(file, file.sha256)
        paths[file.name] = self._store.blob_path(file.sha256)

    def save(
        self,
        name: str,
        source: str,
        repository: Repository,
        chosen: list[RepoFile],
        paths: dict[str, Path],
    ) -> None:
        """Write the manifest, and where the files need their names, links that have them."""
        files = [
            ModelFile(name=file.name, digest=self._digests[file.name], size_bytes=file.size_bytes)
            for file in chosen
        ]
        digest = files[0].digest
        path = paths[chosen[0].name]
        if len(files) > 1:
            text = "\n".join(f"{file.digest} {file.name}" for file in files)
            digest = hashlib.sha256(text.encode()).hexdigest()
            folder = self._store.link_files(digest, paths)
            is_gguf = chosen[0].name.lower().endswith(".gguf")
            path = folder / chosen[0].name if is_gguf else folder
        self._store.save(
            Manifest(
                name=canonical_name(name),
                path=path,
                digest=digest,
                size_bytes=sum(file.size_bytes for file in files),
                modified_at=time.time(),
                source=source,
                files=[
                    file for file in files if paths[file.name] == self._store.blob_path(file.digest)
                ],
                revision=repository.commit,
            )
        )

    def _note(self, file: RepoFile, digest: str) -> None:
        self._digests[file.name] = digest

    def _fetch_plain(self, repository: Repository, file: RepoFile) -> Path:
        """A small file that the repository keeps as it is; git's id vouches for it."""
        if file.size_bytes > MAX_PLAIN_BYTES or file.git_oid is None:
            raise DownloadError(
                f"{repository.repo}: {file.path}: expected a sha256 for a file of "
                f"{file.size_bytes:,} bytes"
            )

        def ask() -> bytes:
            with self._transport.open(repository.url(self._transport.endpoint, file)) as answer:
                content = b""
                for chunk in answer.body():
                    content += chunk
                    if len(content) > file.size_bytes:
                        break
                return content

        content = self._retries.call(ask)
        if len(content) != file.size_bytes or _git_oid(content) != file.git_oid:
            raise DownloadError(f"{repository.repo}: {file.path} is not what its commit has")
        digest = hashlib.sha256(content).hexdigest()
        self._note(file, digest)
        if self._store.has_blob(digest):
            return self._store.blob_path(digest)
        return self._store.add_blob(digest, [content])

    def _fetch_blob(
        self, repository: Repository, file: RepoFile, digest: str
    ) -> Iterator[PullProgress]:
        """Put a file into the store, or wait until somebody else has."""
        blob = self._store.blob_path(digest)
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
                yield from self._download(repository, file, digest, path)
                install(path, blob)
        finally:
            lock.release()

    def _download(
        self, repository: Repository, file: RepoFile, digest: str, path: Path
    ) -> Iterator[PullProgress]:
        url = repository.url(self._transport.endpoint, file)
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
                    f"{repository.repo}: {file.path}: expected sha256 {digest}, found {found}"
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
