"""Models of the Hugging Face Hub, from this machine where they are, else downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from quintet.hub.aliases import alias_of
from quintet.hub.names import HUB
from quintet.hub.pull import pull
from quintet.hub.store import Store


def pretrained_model(
    repo_id: str, filename: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> str:
    """
    Name or path of a repository's model.

    An alias of `REPO/FILE` or of `REPO` wins; then what was downloaded before.

    Args:
        repo_id: `user/repo`.
        filename: which of its files, or a number format such as Q4_K_M; None: a usual one.
        cache_dir: the folder of the store; None: the user's.

    Raises:
        RequestError: it is no name.
        ModelNotFoundError: there is no such model.
        CapacityError, DownloadError: it cannot be downloaded.
    """
    for name in (f"{repo_id}/{filename}", repo_id) if filename else (repo_id,):
        if (target := alias_of(name)) != name:
            return target
    store = Store(None if cache_dir is None else Path(cache_dir))
    name = f"{HUB}/{repo_id}" + (f":{filename}" if filename else "")
    manifest = store.find(name)
    if manifest is None:
        for _ in pull(name, store=store):
            pass
        manifest = store.get(name)
    return str(manifest.path)
