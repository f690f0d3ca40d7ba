"""New models from old ones: the same weights with other defaults, and local files by name."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from quintet.errors import ModelFormatError, ModelNotFoundError, RequestError
from quintet.formats.gguf import GGUFFile
from quintet.hub.manifest import Manifest, canonical_name
from quintet.hub.modelfile import checked_parameters
from quintet.hub.packaged import SOURCE as PACKAGED
from quintet.hub.store import Store


def create(
    store: Store,
    name: str,
    base: Manifest,
    *,
    template: str | None = None,
    system: str | None = None,
    parameters: Mapping[str, object] | None = None,
    messages: Sequence[Mapping[str, str]] = (),
    license: str | None = None,
) -> Manifest:
    """
    Store a model that is another one with some things changed; nothing is copied.

    Args:
        name: of the new one.
        base: what it is made from: of the store, or a `local_model`.
        template, system, license: None keeps the base's.
        parameters: added to the base's.
        messages: none keeps the base's.

    Raises:
        RequestError: it is no name, or an unknown parameter.
        CapacityError: the disk is full.
    """
    manifest = dataclasses.replace(
        base,
        name=canonical_name(name),
        modified_at=time.time(),
        source="local" if base.source == PACKAGED else base.source,
        template=base.template if template is None else template,
        system=base.system if system is None else system,
        parameters={**base.parameters, **checked_parameters(parameters or {})},
        messages=tuple(messages) or base.messages,
        license=base.license if license is None else license,
        parent=base.name or None,
    )
    if base.digest == base.content_digest():  # not the hash of a file
        manifest = dataclasses.replace(manifest, digest=manifest.content_digest())
    store.save(manifest)
    return manifest


def local_model(path: Path) -> Manifest:
    """
    A manifest, without a name yet, of a model used where it lies.

    Args:
        path: a GGUF file, the first one of a split model, a safetensors file, or a folder
            with one and its config.json.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelFormatError: it is no model.
    """
    path = Path(os.path.abspath(path.expanduser()))
    if not path.exists():
        raise ModelNotFoundError(f"no such file or folder: {path}")
    if path.is_dir():
        parts = sorted(path.glob("*.safetensors"))
        if not parts or not (path / "config.json").is_file():
            raise ModelFormatError("expected config.json and *.safetensors in it", path=path)
    elif path.suffix == ".safetensors":
        parts = [path]
    else:
        with GGUFFile.open(path) as file:
            parts = list(file.paths)
    manifest = Manifest(
        name="",
        path=path,
        digest="0" * 64,
        size_bytes=sum(part.stat().st_size for part in parts),
        modified_at=time.time(),
        source="local",
    )
    return dataclasses.replace(manifest, digest=manifest.content_digest())


def base_model(store: Store, text: str, folder: Path) -> Manifest:
    """
    What FROM names: a model of the store, else a path, which may be relative to the Modelfile.

    Args:
        folder: of the Modelfile.

    Raises:
        ModelNotFoundError: neither.
        ModelFormatError: it is no model.
    """
    try:
        found = store.find(text)
    except RequestError:  # no name, so a path
        found = None
    if found is not None:
        return found
    path = folder / Path(text).expanduser()
    if path.exists():
        return local_model(path)
    try:
        return store.get(text)
    except RequestError as error:
        raise ModelNotFoundError(f"no such file or folder: {path}") from error
