"""Downloading a model into the store, with progress that a terminal and a client can show."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence

from quintet.errors import ModelNotFoundError
from quintet.hub import space
from quintet.hub.download import PATIENT, Retries
from quintet.hub.fetch import Fetched, Fetcher, PullProgress
from quintet.hub.gguf_front import FRONT_BYTES, kv_cache_bytes
from quintet.hub.manifest import Manifest, ModelFile
from quintet.hub.names import download_name, hub_source
from quintet.hub.repository import RepoFile, Repository, choose_files, read_repository
from quintet.hub.store import Store
from quintet.hub.transport import Transport

__all__ = ["PullProgress", "pull"]


def pull(
    name: str,
    *,
    store: Store | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    is_forced: bool = False,
    retries: Retries = PATIENT,
    waits_for_hub: bool = True,
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
        waits_for_hub: a hub that cannot be reached at the start is asked again as well; somebody
            who waits for an answer would rather hear of it at once.

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
    first = dataclasses.replace(retries, retries_connects=waits_for_hub)
    with Transport(endpoint, token) as transport:
        repository = first.call(lambda: read_repository(transport, source.repo))
        chosen = choose_files(repository, source.quant)
        fetcher = Fetcher(store, transport, repository, retries)
        if not is_forced:
            _check_memory(fetcher, chosen, name)
        space.check_disk(sum(map(fetcher.missing_bytes, chosen)), store.root, name)
        for attempt in (1, 2):
            for file in chosen:
                yield from fetcher.fetch(file)
            yield PullProgress("writing manifest")
            try:
                store.save(_manifest(store, name, repository, chosen, fetcher.fetched))
                break
            except ModelNotFoundError:  # somebody removed a model that had the same file
                if attempt == 2:
                    raise
    yield PullProgress("success")


def _check_memory(fetcher: Fetcher, chosen: Sequence[RepoFile], name: str) -> None:
    """Refuse what this machine cannot hold.  The KV cache counts where memory is short."""
    weight_bytes = sum(file.size_bytes for file in chosen)
    kv_bytes = 0
    if weight_bytes > space.total_memory_bytes() // 4 and _is_gguf(chosen[0]):
        kv_bytes = kv_cache_bytes(fetcher.read_front(chosen[0], FRONT_BYTES))
    space.check_memory(weight_bytes, kv_bytes, name)


def _manifest(
    store: Store,
    name: str,
    repository: Repository,
    chosen: Sequence[RepoFile],
    fetched: Mapping[str, Fetched],
) -> Manifest:
    """What is written of a model; where its files need their names, makes links that have them."""
    digest, path = fetched[chosen[0].name].digest, fetched[chosen[0].name].path
    if len(chosen) > 1:
        text = "\n".join(f"{fetched[file.name].digest} {file.name}" for file in chosen)
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = store.link_files(digest, {file.name: fetched[file.name].path for file in chosen})
        if _is_gguf(chosen[0]):
            path /= chosen[0].name
    files = [
        ModelFile(name=file.name, digest=fetched[file.name].digest, size_bytes=file.size_bytes)
        for file in chosen
    ]
    return Manifest(
        name=download_name(name),
        path=path,
        digest=digest,
        size_bytes=sum(file.size_bytes for file in files),
        modified_at=time.time(),
        source=str(hub_source(name)),
        # The others are used where they lie.
        files=[file for file in files if fetched[file.name].path == store.blob_path(file.digest)],
        revision=repository.commit,
    )


def _is_gguf(file: RepoFile) -> bool:
    return file.name.lower().endswith(".gguf")
