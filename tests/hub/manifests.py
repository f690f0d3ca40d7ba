"""Manifests for tests."""

from pathlib import Path
from typing import Any

from quintet.hub.manifest import Manifest


def make_manifest(name: str, path: Path, **fields: Any) -> Manifest:
    """A manifest of a local model."""
    values = {
        "digest": "0" * 64,
        "size_bytes": 1,
        "modified_at": 1.5e9,
        "source": "local",
        **fields,
    }
    return Manifest(name=name, path=path, **values)
