"""Names that models have by themselves, and what they stand for in Quintet's list of downloads.

The user's own file of aliases (see `quintet.hub.aliases`) comes first, then models of the store.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from quintet.errors import RequestError
from quintet.hub.aliases import alias_of
from quintet.hub.create import local_model
from quintet.hub.files import default_root
from quintet.hub.manifest import Manifest, canonical_name
from quintet.hub.names import HubSource, hub_source
from quintet.hub.names import aliases as quintet_aliases
from quintet.hub.store import Store

ALIASES = {
    "qwencoder": "qwen2.5-coder:7b",
    "qwencoder-small": "qwen2.5-coder:1.5b",
    "qwen": "qwen2.5:7b",
    "qwen2.5": "qwen2.5:7b",
    "qwen3": "qwen3:8b",
    "qwen3-small": "qwen3:0.6b",
    "llama3": "llama3.1:8b",
    "llama3.1": "llama3.1:8b",
    "llama3.2": "llama3.2:3b",
    "llama3.2-1b": "llama3.2:1b",
    "smollm": "smollm2:1.7b",
    "smollm2": "smollm2:1.7b",
    "tinyllama": "tinyllama:1.1b",
}


def all_aliases() -> dict[str, str]:
    """Every name that can be downloaded, and the repository it is in."""
    short = {
        name.removesuffix(":latest"): str(source) for name, source in quintet_aliases().items()
    }
    return {**short, **{name: short[target] for name, target in ALIASES.items()}}


def download_name(name: str) -> str:
    """What to ask Quintet to download for a name."""
    return ALIASES.get(name.lower().removesuffix(":latest"), name)


class AliasStore(Store):
    """A store that knows the names above besides its own models'."""

    def find(self, name: str) -> Manifest | None:
        """See Store; an alias of the user's may also stand for a path."""
        name, given = users_alias(name, self.root), name
        path = path_of(name, self.root)
        if path is not None and name != given:
            name = given
            return dataclasses.replace(local_model(path), name=canonical_name(name))
        found = super().find(name)
        target = download_name(name)
        return super().find(target) if found is None and target != name else found


def store_at(cache_dir: str | None) -> AliasStore:
    """The store in a folder; None: Quintet's own."""
    return AliasStore(None if cache_dir is None else Path(cache_dir).expanduser())


def find(name: str, store: Store) -> Manifest | None:
    """The model of that name in the store; None where there is none, or it is no name."""
    try:
        return store.find(name)
    except RequestError:
        return None


def source_of(name: str) -> HubSource:
    """
    Where a model can be downloaded from; `user/repo` is taken for one of Hugging Face's.

    Raises:
        ModelNotFoundError: it stands for no repository.
        RequestError: it is no name.
    """
    name = download_name(name)
    model = name.partition(":")[0]
    if model.count("/") == 1 and not model.lower().startswith(("hf.co/", "huggingface.co/")):
        name = f"hf.co/{name}"
    return hub_source(name)


def loadable(manifest: Manifest, root: Path) -> str | Path:
    """What `quintet.LLM` is to be given for a model: its name if that is one there, or its path."""
    is_own = root == default_root().absolute()
    if is_own and manifest.name and Store(root).find(manifest.name) is not None:
        return manifest.name
    return manifest.path


def users_alias(name: str, root: Path) -> str:
    """What the user's aliases make of a name: those of a folder of models, else Quintet's own."""
    target = alias_of(name, root)
    return alias_of(name) if target == name else target


def path_of(name: str, root: Path) -> Path | None:
    """The file or folder that a name, or what the user's aliases make of it, is the path of."""
    path = Path(users_alias(name, root)).expanduser()
    return path if path.exists() else None
