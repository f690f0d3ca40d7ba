"""How a model wants the rows of a text made into one vector: what its file says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.strict_json import load_array, load_object

Pooling: TypeAlias = Literal["mean", "cls", "last", "max", "rank"]

# Source: llama.cpp's `llama_pooling_type`; 0 is "none", which leaves the choice to the user.
_GGUF_TYPES: dict[int, Pooling | None] = {0: None, 1: "mean", 2: "cls", 3: "last", 4: "rank"}

# Source: sentence-transformers, `models/Pooling.py`; in the order in which it looks.
_MODES: dict[str, Pooling] = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "lasttoken": "last",
}
_MODULES = ("Transformer", "Pooling", "Normalize")
_MAX_BYTES = 1 << 20


def from_gguf(metadata: Mapping[str, Any], architecture: str, path: str | None) -> Pooling | None:
    """The pooling of a GGUF file, by the key `<architecture>.pooling_type`.

    Raises:
        ModelFormatError: a number that stands for none.
    """
    key = f"{architecture}.pooling_type"
    value = metadata.get(key, 0)
    if value not in _GGUF_TYPES or isinstance(value, bool):
        raise ModelFormatError(f"expected 0 to 4, found {value!r}", path=path, part=key)
    return _GGUF_TYPES[value]


def gguf_type(pooling: Pooling) -> int:
    """The number that stands for it in a GGUF file.

    Raises:
        UnsupportedModelError: GGUF has none for it.
    """
    for number, name in _GGUF_TYPES.items():
        if name == pooling:
            return number
    known = tuple(name for name in _GGUF_TYPES.values() if name is not None)
    raise UnsupportedModelError("pooling to write as GGUF", pooling, known)


def from_directory(directory: Path) -> Pooling | None:
    """The pooling of a sentence-transformers directory; None where it is none.

    Raises:
        ModelFormatError: modules.json or the pooling's configuration breaks its format.
        UnsupportedModelError: a pooling, or a step behind it, that is not ours.
    """
    listing = directory / "modules.json"
    if not os.path.exists(listing):
        return None
    found: Pooling | None = None
    for module in load_array(listing, max_bytes=_MAX_BYTES):
        kind = str(module.get("type") if isinstance(module, dict) else module).rsplit(".", 1)[-1]
        if kind not in _MODULES:
            raise UnsupportedModelError("sentence-transformers module", kind, _MODULES)
        if kind == "Pooling":
            found = _mode(directory / _inside(module.get("path"), listing) / "config.json")
    return found


def max_seq_length(directory: Path) -> int | None:
    """The most tokens that sentence-transformers lets a text have; None where it does not say."""
    path = directory / "sentence_bert_config.json"
    if not os.path.exists(path):
        return None
    value = load_object(path, max_bytes=_MAX_BYTES).get("max_seq_length")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelFormatError(
            f"expected a positive integer, found {value!r}", path=path, part="max_seq_length"
        )
    return value


def _mode(path: Path) -> Pooling:
    config = load_object(path, max_bytes=_MAX_BYTES)
    named = config.get("pooling_mode")
    if named is not None:
        by_name: dict[str, Pooling] = {
            "cls": "cls",
            "max": "max",
            "mean": "mean",
            "lasttoken": "last",
        }
        if not isinstance(named, str) or named not in by_name:
            raise UnsupportedModelError("pooling", str(named), by_name)
        return by_name[named]
    prefix = "pooling_mode_"
    chosen = [name[len(prefix) :] for name in config if name.startswith(prefix) and config[name]]
    if len(chosen) != 1 or chosen[0] not in _MODES:
        raise UnsupportedModelError("pooling", " and ".join(chosen) or "none", _MODES)
    return _MODES[chosen[0]]


def _inside(name: object, listing: Path) -> str:
    """A path of the listing, which must not lead out of the directory."""
    if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in name.split("/"):
        raise ModelFormatError(
            f"expected the path of a folder inside, found {name!r}", path=listing, part="path"
        )
    return name
