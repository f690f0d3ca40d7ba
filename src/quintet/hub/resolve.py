"""From what a user calls a model to its file."""

from __future__ import annotations

import os
from pathlib import Path

from quintet.errors import ModelNotFoundError, RequestError
from quintet.hub.aliases import alias_of
from quintet.hub.manifest import Manifest, canonical_name
from quintet.hub.packaged import packaged_models
from quintet.hub.store import Store

__all__ = ["find", "packaged_models", "resolve"]


def resolve(model: str | os.PathLike[str], store: Store | None = None) -> Path:
    """
    The file or directory of a model.

    Args:
        model: the name of a packaged or stored model, or a path to a GGUF file, a safetensors
            file or a Hugging Face directory.  An alias wins over a packaged name, which wins over
            a stored one, which wins over a path; `./demo` is a path, unless it is an alias.
        store: where names are looked up; None: the user's.

    Raises:
        ModelNotFoundError: neither; says how to get it, or lists the names there are.
        ModelFormatError: the store's manifest of that name is damaged.
    """
    store = Store() if store is None else store
    model = alias_of(os.fspath(model), store.root)
    manifest = find(model, store)
    if manifest is not None:
        if not _is_whole(manifest.path):
            # Without the path: a server may show this to a client.
            raise ModelNotFoundError(
                f"files of {manifest.name} are gone; get them again: "
                f"quintet pull {_short(manifest.name)}"
            )
        return manifest.path
    name = os.fspath(model)
    path = Path(name).expanduser()
    if path.exists():
        return path
    names = ", ".join(_short(each.name) for each in store.list()) or "none"
    advice = ""
    if _is_name(name) and not name.endswith((".gguf", ".safetensors")):
        advice = f"; to download it: quintet pull {name}"
    raise ModelNotFoundError(
        f"no model {name!r}: no such file or directory{advice}; models by name: {names}"
    )


def find(model: str | os.PathLike[str], store: Store | None = None) -> Manifest | None:
    """
    What the store knows of a model; None if that is no name of its own.

    Raises:
        ModelFormatError: the manifest of that name is damaged.
    """
    store = Store() if store is None else store
    name = alias_of(os.fspath(model), store.root)
    return store.find(name) if _is_name(name) else None


def _is_whole(path: Path) -> bool:
    """Whether a file is there, or all that a folder leads to: links may have lost their files."""
    return all(map(Path.exists, path.iterdir())) if path.is_dir() else path.exists()


def _is_name(text: str) -> bool:
    try:
        canonical_name(text)
    except RequestError:
        return False
    return True


def _short(name: str) -> str:
    return name.removesuffix(":latest")
