"""Files that huggingface_hub has downloaded before, used where they lie.

    CACHE/models--user--repo/blobs/ETAG            sha256, or git's id of a small file
    CACHE/models--user--repo/snapshots/COMMIT/...  links to them by name

Source: Hugging Face documentation, "Hub Local Cache".
"""

from __future__ import annotations

import os
from pathlib import Path

from quintet.hub.hf_home import hugging_face_home
from quintet.hub.repository import RepoFile


def cache_folder() -> Path:
    """$HF_HUB_CACHE, else `hub` in Hugging Face's home."""
    named = os.environ.get("HF_HUB_CACHE")
    return Path(named).expanduser() if named else hugging_face_home() / "hub"


def cached_file(repo: str, commit: str, file: RepoFile) -> Path | None:
    """
    Where the cache has a file, judged by name and size; its content is for the caller to check.

    A path below `snapshots` is preferred, since it keeps the file's name.
    """
    folder = cache_folder() / f"models--{repo.replace('/', '--')}"
    for path in (
        folder / "snapshots" / commit / file.path,
        folder / "blobs" / (file.sha256 or file.git_oid or "-"),
    ):
        if _has_size(path, file.size_bytes):
            return path.absolute()
    return None


def _has_size(path: Path, num_bytes: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == num_bytes
    except OSError:
        return False
