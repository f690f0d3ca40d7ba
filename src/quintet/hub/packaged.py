"""The models that come with Quintet."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from quintet.hub.manifest import DEFAULT_TAG, Manifest

SOURCE = "package"
_FOLDER = Path(__file__).parent / "data"


def packaged_models() -> dict[str, Path]:
    """Their files, by name without a tag."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.gguf"))}


def packaged_manifests() -> dict[str, Manifest]:
    """What the store says of them, by canonical name."""
    manifests = {}
    for stem, path in packaged_models().items():
        name = f"{stem}:{DEFAULT_TAG}"
        status = path.stat()
        manifests[name] = Manifest(
            name=name,
            path=path,
            digest=_digest(path, status.st_size, status.st_mtime_ns),
            size_bytes=status.st_size,
            modified_at=status.st_mtime,
            source=SOURCE,
        )
    return manifests


@lru_cache(maxsize=16)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """Sha256 of the file; size and time are there so that a changed file is read again."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
