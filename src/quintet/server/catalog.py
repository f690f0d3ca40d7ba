"""The models a server may load, by the names clients call them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from quintet.errors import ModelNotFoundError
from quintet.hub.manifest import Manifest

DEFAULT_TAG = ":latest"


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
        sources: files or directories, by name.
        store: what else may be loaded.
    """

    def __init__(self, sources: Mapping[str, Path], store: Catalog | None = None) -> None:
        now = time.time()
        self._served = {
            name: Manifest(
                name=name, path=path, size_bytes=_size(path), modified_at=_modified_at(path, now)
            )
            for name, path in sources.items()
        }
        self._store = store

    def list(self) -> list[Manifest]:
        """See Catalog."""
        others = [] if self._store is None else self._store.list()
        taken = {name.removesuffix(DEFAULT_TAG) for name in self._served}
        return [
            *self._served.values(),
            *(other for other in others if other.name.removesuffix(DEFAULT_TAG) not in taken),
        ]

    def get(self, name: str) -> Manifest:
        """See Catalog; the tag "latest" may be left out or added."""
        for spelling in (name, name.removesuffix(DEFAULT_TAG), name + DEFAULT_TAG):
            if spelling in self._served:
                return self._served[spelling]
        if self._store is not None:
            return self._store.get(name)
        served = ", ".join(self._served)
        raise ModelNotFoundError(f"model {name[:100]!r} is not served; served: {served}")


def _size(path: Path) -> int:
    try:
        files = path.iterdir() if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:  # its loading will tell
        return 0


def _modified_at(path: Path, default: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return default
