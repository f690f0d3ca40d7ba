"""The routes of models: what there is, and changes to it.  Those that generate: `generation`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from quintet.errors import ModelNotFoundError
from quintet.hub.store import Store
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context, Dialect, Operation
from quintet.server.dialects.ollama.bodies import (
    ChatBody,
    CopyBody,
    CreateBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    NamedBody,
    PullBody,
    ShowBody,
)
from quintet.server.dialects.ollama.generation import Generation, error_body, error_frame
from quintet.server.dialects.ollama.library import entry, running_entry, show
from quintet.server.dialects.ollama.manage import create, in_thread, receive_blob
from quintet.server.errors import HTTPRefusal
from quintet.server.limits import read_json
from quintet.server.streaming import NDJSON, FrameStream, ndjson_line

_log = logging.getLogger(__name__)

# Clients compare it with the release that brought what they need (VS Code: 0.6.4): the newest
# release whose interface this is.
API_VERSION = "0.13.0"

_OPERATIONS: Final = {
    "GET /": Operation(media_types=("text/plain",)),
    "POST /api/generate": Operation(GenerateBody),
    "POST /api/chat": Operation(ChatBody),
    "POST /api/embed": Operation(EmbedBody),
    "POST /api/embeddings": Operation(EmbeddingsBody),
    "POST /api/show": Operation(ShowBody),
    "POST /api/pull": Operation(PullBody),
    "POST /api/push": Operation(PullBody, summary="Refused"),
    "POST /api/create": Operation(CreateBody),
    "POST /api/copy": Operation(CopyBody, media_types=()),
    "DELETE /api/delete": Operation(NamedBody, media_types=()),
    "HEAD /api/blobs/{digest}": Operation(media_types=()),
    "POST /api/blobs/{digest}": Operation(
        raw_type="application/octet-stream", media_types=(), statuses=(200, 201)
    ),
}


def dialect(context: Context) -> Dialect:
    """Ollama's interface over these models."""
    generation = Generation(context)
    models = _Models(context)
    routes = [
        Route("/", _greet, methods=["GET"]),
        Route("/api/version", _version, methods=["GET"]),
        Route("/api/generate", generation.generate, methods=["POST"]),
        Route("/api/chat", generation.chat, methods=["POST"]),
        Route("/api/embed", generation.embed, methods=["POST"]),
        Route("/api/embeddings", generation.embeddings, methods=["POST"]),
        Route("/api/tags", models.tags, methods=["GET"]),
        Route("/api/ps", models.ps, methods=["GET"]),
        Route("/api/show", models.show, methods=["POST"]),
        Route("/api/pull", models.pull, methods=["POST"]),
        Route("/api/push", models.push, methods=["POST"]),
        Route("/api/create", models.create, methods=["POST"]),
        Route("/api/copy", models.copy, methods=["POST"]),
        Route("/api/delete", models.delete, methods=["DELETE"]),
        Route("/api/blobs/{digest}", models.has_blob, methods=["HEAD"]),
        Route("/api/blobs/{digest}", models.add_blob, methods=["POST"]),
    ]
    return Dialect(
        "ollama",
        routes,
        ("/api/",),
        error_body,
        operations=_OPERATIONS,
        stream_type=NDJSON.media_type,
    )


class _Models:
    def __init__(self, context: Context) -> None:
        self._models = context.models
        self._settings = context.settings

    async def tags(self, request: Request) -> Response:
        manifests = self._models.catalog.list()
        entries = await asyncio.to_thread(lambda: [entry(manifest) for manifest in manifests])
        return JSONResponse({"models": entries})

    async def ps(self, request: Request) -> Response:
        """Loaded models, the one that stays longest first."""
        models = sorted(self._models, key=lambda model: -model.expires_at_s)
        return JSONResponse({"models": [running_entry(model) for model in models]})

    async def show(self, request: Request) -> Response:
        body = await self._parse(ShowBody, request)
        manifest = self._models.find(body.model_name)
        return JSONResponse(await asyncio.to_thread(show, manifest, verbose=body.verbose or False))

    async def pull(self, request: Request) -> Response:
        body = await self._parse(PullBody, request)
        store, name = self._store, body.model_name
        from quintet.hub.pull import pull  # an HTTP client, for few

        def work() -> Iterator[dict[str, Any]]:
            for progress in pull(name, store=store, waits_for_hub=False):
                yield progress.as_json()

        return await self._progress(work, is_streamed=body.stream is not False)

    async def push(self, request: Request) -> Response:
        body = await self._parse(PullBody, request)
        self._models.find(body.model_name)
        raise HTTPRefusal(501, "pushing models is not supported", code="not_supported")

    async def create(self, request: Request) -> Response:
        body = await self._parse(CreateBody, request)
        store, name = self._store, body.model_name
        await self._unload(name)
        return await self._progress(
            lambda: create(store, body), is_streamed=body.stream is not False
        )

    async def copy(self, request: Request) -> Response:
        body = await self._parse(CopyBody, request)
        await self._unload(body.destination)
        await asyncio.to_thread(self._store.copy, body.source, body.destination)
        return Response()

    async def delete(self, request: Request) -> Response:
        name = (await self._parse(NamedBody, request)).model_name
        await self._unload(name)
        await asyncio.to_thread(self._store.delete, name)
        return Response()

    async def has_blob(self, request: Request) -> Response:
        there = await asyncio.to_thread(self._store.has_blob, request.path_params["digest"])
        return Response(status_code=200 if there else 404)

    async def add_blob(self, request: Request) -> Response:
        is_new = await receive_blob(self._store, request.path_params["digest"], request.receive)
        return Response(status_code=201 if is_new else 200)

    @property
    def _store(self) -> Store:
        """What may be changed.

        Raises:
            HTTPRefusal: the server was started with certain models, and serves no others.
        """
        if not isinstance(self._models.catalog, Store):
            raise HTTPRefusal(
                403, "this server's models are fixed; start it without any", code="models_fixed"
            )
        return self._models.catalog

    async def _unload(self, name: str) -> None:
        """What is about to change must not be served as it was."""
        with contextlib.suppress(ModelNotFoundError):
            await self._models.unload(name)

    async def _parse(self, kind: type[Any], request: Request) -> Any:
        return parse_body(kind, await read_json(request.receive, self._settings))

    async def _progress(
        self, work: Callable[[], Iterator[dict[str, Any]]], *, is_streamed: bool
    ) -> Response:
        """Statuses line by line, or the last one only."""

        async def frames() -> AsyncGenerator[bytes, None]:
            async for item in in_thread(work):
                yield ndjson_line(item)

        if is_streamed:
            return FrameStream(frames(), error_frame, self._settings.keep_alive_s, NDJSON)
        last: dict[str, Any] = {}
        async for item in in_thread(work):
            last = item
        return JSONResponse(last)


async def _greet(request: Request) -> Response:
    return PlainTextResponse("Ollama is running")


async def _version(request: Request) -> Response:
    return JSONResponse({"version": API_VERSION})
