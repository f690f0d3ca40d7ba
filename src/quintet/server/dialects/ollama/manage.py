"""Changes to the store over HTTP: pull, create, copy, delete, blobs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from quintet.errors import ModelNotFoundError, RequestError
from quintet.hub.create import create as create_model
from quintet.hub.manifest import Manifest, ModelFile, canonical_name
from quintet.hub.modelfile import is_go_template
from quintet.hub.store import Store
from quintet.server.bodies import parse_body
from quintet.server.dialects.ollama.bodies import CreateBody, Options
from quintet.server.errors import HTTPRefusal, UnsupportedParameterError

T = TypeVar("T")

_BLOB_STALL_S = 60.0  # for the next piece of an upload


def create(store: Store, body: CreateBody) -> Iterator[dict[str, Any]]:
    """Make a model of another one or of blobs, and of what the body sets; yields its statuses.

    Raises:
        RequestError: fields that make no model.
        UnsupportedParameterError: adapters, quantising, a template of Go.
        ModelNotFoundError: the model or blob it is to be made of is not in the store.
    """
    name = canonical_name(body.model_name)
    _refuse_unsupported(body)
    if (body.from_ is None) == (not body.files):
        raise RequestError("expected either from or files", parameter="from")
    yield {"status": "reading model metadata"}
    base = _from_files(store, name, body.files) if body.files else store.get(body.from_ or "")
    license_ = "\n".join(body.license) if isinstance(body.license, list) else body.license
    parse_body(Options, body.parameters or {})  # what could not be used is refused now
    yield {"status": "writing manifest"}
    create_model(
        store,
        name,
        base,
        template=body.template,
        system=body.system,
        parameters=body.parameters,
        messages=[message.model_dump() for message in body.messages or ()],
        license=license_,
    )
    yield {"status": "success"}


async def receive_blob(store: Store, digest: str, receive: Receive) -> bool:
    """Store a request's body under its digest; False where it is there already.

    Raises:
        RequestError: it is not what the digest says.
        HTTPRefusal: 408, it stalls.
        ClientDisconnect: the client left before its end.
    """
    if await asyncio.to_thread(store.has_blob, digest):
        return False
    await store.add_blob_async(digest, _pieces(receive))
    return True


async def in_thread(
    work: Callable[[], Iterator[T]],
) -> AsyncGenerator[T, None]:
    """The items of a generator that blocks; closing this closes it, at its next item."""
    items = await asyncio.to_thread(work)
    end = object()
    try:
        while True:
            item = await asyncio.to_thread(next, items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            with contextlib.suppress(ValueError):  # it is running: its thread ends with its item
                await asyncio.shield(asyncio.to_thread(close))


def _from_files(store: Store, name: str, files: dict[str, str]) -> Manifest:
    """A model of uploaded blobs: one GGUF file, or the files of a Hugging Face directory."""
    parts = []
    for file_name, digest in files.items():
        path = store.blob_path(digest)
        if not store.has_blob(digest):
            raise ModelNotFoundError(f"blob {digest[:80]!r} not found; send it to /api/blobs first")
        digits = path.name.removeprefix("sha256-")
        part = ModelFile(name=file_name, digest=digits, size_bytes=path.stat().st_size)
        parts.append(part)
    manifest = Manifest(
        name=name,
        path=store.blob_path(parts[0].digest),
        digest=parts[0].digest,
        size_bytes=sum(part.size_bytes for part in parts),
        modified_at=time.time(),
        source="blob",
        files=parts,
    )
    if len(parts) == 1:
        return manifest
    targets: dict[str, Path] = {part.name: store.blob_path(part.digest) for part in parts}
    folder = store.link_files(manifest.content_digest(), targets)
    first = sorted(name for name in targets if name.endswith(".gguf"))
    return dataclasses.replace(manifest, path=folder / first[0] if first else folder)


def _refuse_unsupported(body: CreateBody) -> None:
    if body.adapters:
        raise UnsupportedParameterError("adapters are not supported", parameter="adapters")
    if body.quantize:
        raise UnsupportedParameterError(
            "not done over HTTP; quantise the file before it is added", parameter="quantize"
        )
    if body.template is not None and is_go_template(body.template):
        raise UnsupportedParameterError(
            "expected a Jinja template: templates of Go are not supported", parameter="template"
        )


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    """A request's body, piece by piece: weights are far larger than what fits into memory."""
    while True:
        try:
            message = await asyncio.wait_for(receive(), _BLOB_STALL_S)
        except asyncio.TimeoutError:
            raise HTTPRefusal(408, "the upload stalled", code="request_timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return
