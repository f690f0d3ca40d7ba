"""The models a server may load, by the names clients call them."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from quintet.errors import ModelNotFoundError
from quintet.hub.manifest import DEFAULT_TAG, Manifest


class Catalog(Protocol):
    """Where models are looked up; the hub's store is one."""

    def list(self) -> list[Manifest]:
        """All there are."""

    def get(self, name: str) -> Manifest:
        """The one of that name.

        Raises:
            ModelNotFoundError: there is none; no client may tell from it which files exist.
        """


class ServedModels:
    """The models a server was started with, before those of a store.

    Args:
        manifests: those, by the names they are served under.
        store: what else may be loaded.
    """

    def __init__(self, manifests: Iterable[Manifest], store: Catalog | None = None) -> None:
        self._served = {manifest.name: manifest for manifest in manifests}
        self._store = store

    def list(self) -> list[Manifest]:
        """See Catalog."""
        others = [] if self._store is None else self._store.list()
        taken = {_short(name) for name in self._served}
        return [*self._served.values(), *(m for m in others if _short(m.name) not in taken)]

    def get(self, name: str) -> Manifest:
        """See Catalog; the tag "latest" may be left out or added."""
        for spelling in (name, _short(name), f"{name}:{DEFAULT_TAG}"):
            if spelling in self._served:
                return self._served[spelling]
        if self._store is not None:
            return self._store.get(name)
        served = ", ".join(self._served)
        raise ModelNotFoundError(f"model {name[:100]!r} is not served; served: {served}")


def local_manifest(name: str, path: Path) -> Manifest:
    """A model by its path, under a name of the server's own."""
    size_bytes, modified_at = 0, time.time()
    with contextlib.suppress(OSError):  # loading it will tell
        files = list(path.iterdir()) if path.is_dir() else [path]
        size_bytes = sum(file.stat().st_size for file in files if file.is_file())
        modified_at = path.stat().st_mtime
    manifest = Manifest(
        name=name,
        path=path,
        digest="",
        size_bytes=size_bytes,
        modified_at=modified_at,
        source="local",
    )
    return dataclasses.replace(manifest, digest=manifest.content_digest())


def _short(name: str) -> str:
    return name.removesuffix(f":{DEFAULT_TAG}")
