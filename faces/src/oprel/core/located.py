"""From what a user calls a model to what there is of it."""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass

from oprel import choice
from oprel.aliases import AliasStore, find, path_of, source_of
from oprel.core.exceptions import ModelNotFoundError
from quintet.engine.sizing import available_memory_bytes
from quintet.errors import ModelNotFoundError as QuintetModelNotFoundError
from quintet.errors import RequestError
from quintet.hub.create import local_model
from quintet.hub.manifest import Manifest
from quintet.hub.names import HubSource

_log = logging.getLogger("oprel")


@dataclass(frozen=True)
class Located:
    """
    A model.

    Args:
        identifier: as the user calls it.
        store: where models are, and downloads go.
        manifest: what the store knows of it, or its file by itself, then without a name.
        source: where to download it from, while there is no manifest.
        quantization: to download; None: what fits into `budget_bytes`.
        budget_bytes: what it may take.
    """

    identifier: str
    store: AliasStore
    manifest: Manifest | None = None
    source: HubSource | None = None
    quantization: str | None = None
    budget_bytes: int = 0

    @property
    def name(self) -> str:
        """What the store or the hub calls it."""
        if self.manifest is not None and self.manifest.name:
            return self.manifest.name
        return str(self.source) if self.source is not None else self.identifier

    def download_source(self) -> HubSource:
        """
        Where to download it from, with a number format that fits.

        Raises:
            MemoryError: none fits.
            DownloadError: the hub cannot be asked.
        """
        if self.source is None:
            raise ModelNotFoundError(f"no model {self.identifier!r}")
        if self.quantization is not None:
            return HubSource(self.source.repo, self.quantization)
        if self.source.quant is not None:
            return self.source
        return choice.choose_download(self.source, self.budget_bytes)

    def found(self, manifest: Manifest) -> Located:
        """The same with this manifest."""
        return dataclasses.replace(self, manifest=manifest)


def locate(
    identifier: str, quantization: str | None, max_memory_mb: int | None, store: AliasStore
) -> Located:
    """
    Find a model in the store, at a path, or among those that can be downloaded.

    Raises:
        ModelNotFoundError: it is none of these.
        MemoryError: it is there in several number formats, and none fits.
        ModelFormatError: what is at the path is no model.
    """
    available = available_memory_bytes()
    budget = available if max_memory_mb is None else min(available, max_memory_mb * 2**20)
    here = Located(identifier, store, quantization=quantization, budget_bytes=budget)
    manifest = find(identifier, store)
    if manifest is not None:
        other = _other_format(manifest, here)
        return here.found(manifest) if other is None else other
    path = path_of(identifier, store.root)
    if path is not None:
        if path.is_dir():
            path = choice.choose_file(path, quantization, budget)
        manifest = local_model(path)
        _say_if_other(manifest, here)
        return here.found(manifest)
    try:
        source = source_of(identifier)
    except RequestError as error:
        raise ModelNotFoundError(f"no model {identifier!r}: {error}") from error
    except QuintetModelNotFoundError as error:
        near = ", ".join(each.name.removesuffix(":latest") for each in store.list()) or "none"
        raise ModelNotFoundError(f"{error}; models here: {near}") from error
    return _of_source(here, source)


def register(located: Located) -> Manifest:
    """
    A model at a path as one of the store's, so that the daemon finds it; nothing is copied.

    Raises:
        ModelNotFoundError: it is not here.
    """
    manifest = located.manifest
    if manifest is None:
        raise ModelNotFoundError(f"no model {located.identifier!r}")
    if manifest.name:
        return manifest
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", manifest.path.stem).strip("-.") or "model"
    # The path is part of it: equal files at two places are two models.
    name = f"local/{stem[:60]}:{manifest.digest[:12]}"
    known = find(name, located.store)
    if known is not None:
        return known
    manifest = dataclasses.replace(manifest, name=name)
    located.store.save(manifest)
    return manifest


def _of_source(here: Located, source: HubSource) -> Located:
    """A repository's model: one of its formats that the store has, or else a download."""
    if here.quantization is not None:
        source = HubSource(source.repo, here.quantization)
    here = dataclasses.replace(here, source=source)
    if source.quant is not None:
        manifest = find(str(source), here.store)
        return here if manifest is None else here.found(manifest)
    stored = {
        quant: manifest
        for quant in choice.QUANTIZATIONS
        if (manifest := find(str(HubSource(source.repo, quant)), here.store)) is not None
    }
    if not stored:
        return here
    sizes = {quant: manifest.size_bytes for quant, manifest in stored.items()}
    return here.found(stored[choice.best_fit(sizes, here.budget_bytes, source.repo)])


def _other_format(manifest: Manifest, here: Located) -> Located | None:
    """The same model in the format asked for, where the one found has another."""
    if here.quantization in (None, choice.quantization_of(manifest)):
        return None
    if manifest.source.startswith("hf.co/"):
        return _of_source(here, HubSource(manifest.source.removeprefix("hf.co/").partition(":")[0]))
    _say_if_other(manifest, here)
    return None


def _say_if_other(manifest: Manifest, here: Located) -> None:
    if here.quantization not in (None, choice.quantization_of(manifest)):
        _log.info(
            "%s is a file of its own; it is used as it is, not as %s",
            here.identifier,
            here.quantization,
        )
