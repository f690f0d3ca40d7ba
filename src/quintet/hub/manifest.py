"""What the store knows of one model, and how it is written down.

A name is `model:tag`, where `model` may have up to four parts, as in `hf.co/user/repo:Q4_K_M`;
a tag left out is `latest`.  Names keep their case and are found whatever the case.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quintet.errors import ModelFormatError, RequestError
from quintet.formats import strict_json

DEFAULT_TAG = "latest"
MAX_NAME_CHARS = 200  # with an ending, a file name
MAX_MANIFEST_BYTES = 4 * 2**20

# No part can be "." or "..", start like an option, or hold a separator.
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,3}}(?::{_PART})?")
_DIGEST = re.compile(r"(?:sha256[:-])?([0-9a-f]{64})")
_FORMAT = 1


def canonical_name(text: str) -> str:
    """
    The name in full: with its tag, and `hf.co` however the host was spelt.

    Raises:
        RequestError: it is no name; carries the parameter "model".
    """
    if len(text) > MAX_NAME_CHARS:
        raise RequestError(
            f"expected a name of at most {MAX_NAME_CHARS} characters, found {len(text)}",
            parameter="model",
        )
    if not _NAME.fullmatch(text):
        raise RequestError(
            "expected a name such as qwen3:0.6b or hf.co/user/repo:Q4_K_M, of letters, digits, "
            f"'.', '_' and '-'; found {text!r}",
            parameter="model",
        )
    model, _, tag = text.partition(":")
    host, slash, rest = model.partition("/")
    if slash and host.lower() in ("hf.co", "huggingface.co", "www.huggingface.co"):
        model = f"hf.co/{rest}"
    return f"{model}:{tag or DEFAULT_TAG}"


def checked_digest(text: str) -> str:
    """
    The 64 hexadecimal digits of `sha256:...`, `sha256-...` or of themselves.

    Raises:
        RequestError: anything else; carries the parameter "digest".
    """
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise RequestError(
            f"expected sha256: and 64 lower-case hexadecimal digits, found {text[:80]!r}",
            parameter="digest",
        )
    return match[1]


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """
    A file of a model that the store holds as a blob.

    Args:
        name: what its repository calls it, e.g. `model-00001-of-00003.gguf`.
        digest: sha256 of its content, 64 hexadecimal digits; also the blob's name.
        size_bytes: of its content.
    """

    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """
    A model by name.

    Args:
        name: canonical, `model:tag`.
        path: the model file or directory, used in place.
        digest: 64 hexadecimal digits: sha256 of the model file where it is known, else of what
            this manifest says (`content_digest`).
        size_bytes: of all its files.
        modified_at: seconds since 1970.
        source: where it came from: `hf.co/user/repo:QUANT`, "package", "local" or "blob".
        template: a chat template (Jinja) instead of the file's own.
        system: a system prompt for conversations that bring none.
        parameters: defaults of requests, by Ollama's names: temperature, num_ctx, stop...
        messages: `{"role": ..., "content": ...}` that precede every conversation.
        license: its text.
        parent: the name it was created from.
        files: those that are blobs of the store; none for a model used where it lies.
        revision: the commit its files are from, for a pulled model.
    """

    name: str
    path: Path
    digest: str
    size_bytes: int
    modified_at: float
    source: str
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    messages: Sequence[Mapping[str, str]] = ()
    license: str | None = None
    parent: str | None = None
    files: Sequence[ModelFile] = ()
    revision: str | None = None

    def content_digest(self) -> str:
        """Sha256 of all that makes the model what it is: not its name, its date or `digest`."""
        fields = _to_json(self)
        for key in ("name", "modified_at", "digest"):
            del fields[key]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """
    The manifest as JSON.

    Raises:
        RequestError: a value that strict JSON has no form for.
    """
    try:
        text = json.dumps(
            {"format": _FORMAT, **_to_json(manifest)}, indent=1, ensure_ascii=False, allow_nan=False
        )
        return text.encode() + b"\n"
    except (TypeError, ValueError) as error:  # half a surrogate pair is a ValueError too
        raise RequestError(f"expected text and numbers: {error}", parameter="model") from error


def decode(encoded: bytes, *, path: Path) -> Manifest:
    """
    The manifest that `encode` wrote.

    Raises:
        ModelFormatError: it did not write this; names `path`.
    """
    value = strict_json.loads(encoded, path=path)
    reader = _Fields(value, path)
    if reader.get("format", int) != _FORMAT:
        raise ModelFormatError(
            f"expected format {_FORMAT}, found {value['format']}", path=path, part="format"
        )
    try:
        return Manifest(
            name=canonical_name(reader.get("name", str)),
            path=Path(reader.get("path", str)),
            digest=checked_digest(reader.get("digest", str)),
            size_bytes=reader.get("size_bytes", int),
            modified_at=float(reader.get("modified_at", float, int)),
            source=reader.get("source", str),
            template=reader.optional("template", str),
            system=reader.optional("system", str),
            parameters=reader.get("parameters", dict),
            messages=tuple(
                {"role": item.get("role", str), "content": item.get("content", str)}
                for item in reader.items("messages")
            ),
            license=reader.optional("license", str),
            parent=reader.optional("parent", str),
            files=tuple(
                ModelFile(
                    name=item.get("name", str),
                    digest=checked_digest(item.get("digest", str)),
                    size_bytes=item.get("size_bytes", int),
                )
                for item in reader.items("files")
            ),
            revision=reader.optional("revision", str),
        )
    except RequestError as error:  # a name or a digest
        raise ModelFormatError(str(error), path=path) from error


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "path": str(manifest.path),
        "digest": manifest.digest,
        "size_bytes": manifest.size_bytes,
        "modified_at": manifest.modified_at,
        "source": manifest.source,
        "template": manifest.template,
        "system": manifest.system,
        "parameters": dict(manifest.parameters),
        "messages": [dict(message) for message in manifest.messages],
        "license": manifest.license,
        "parent": manifest.parent,
        "files": [vars(file) for file in manifest.files],
        "revision": manifest.revision,
    }


class _Fields:
    """A JSON object whose fields are asked for by type."""

    def __init__(self, value: object, path: Path) -> None:
        self._path = path
        if not isinstance(value, dict):
            raise ModelFormatError(
                f"expected a JSON object, found {type(value).__name__}", path=path
            )
        self._fields: dict[str, Any] = value

    def get(self, key: str, *types: type) -> Any:
        value = self._fields.get(key)
        if not isinstance(value, types) or isinstance(value, bool):
            expected = " or ".join(each.__name__ for each in types)
            raise ModelFormatError(
                f"expected {expected}, found {type(value).__name__}", path=self._path, part=key
            )
        return value

    def optional(self, key: str, kind: type) -> Any:
        return None if self._fields.get(key) is None else self.get(key, kind)

    def items(self, key: str) -> list[_Fields]:
        return [_Fields(item, self._path) for item in self.get(key, list)]
