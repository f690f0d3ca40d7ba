"""The routes under /v1: read the body, ask the engine, answer whole or as a stream."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quintet.engine.output import OutputChunk
from quintet.hub.manifest import Manifest
from quintet.server.answers import Answer, collect
from quintet.server.dialect import Context, Dialect
from quintet.server.dialects.openai.bodies import (
    ChatBody,
    CompletionBody,
    SamplingBody,
    parse_body,
)
from quintet.server.dialects.openai.chat import ChatChunks, chat_reply, chat_requests
from quintet.server.dialects.openai.completions import (
    CompletionChunks,
    completion_reply,
    completion_requests,
)
from quintet.server.dialects.openai.replies import ReplyHeader
from quintet.server.disconnect import unless_disconnected
from quintet.server.engines import GenerationRequest, ServedModel, stream_all
from quintet.server.errors import ErrorReply, error_reply
from quintet.server.limits import read_json
from quintet.server.streaming import DONE, FrameStream, event

_log = logging.getLogger(__name__)


def dialect(context: Context) -> Dialect:
    """OpenAI's interface over these models."""
    handlers = _Handlers(context)
    routes = [
        Route("/v1/chat/completions", handlers.chat, methods=["POST"]),
        Route("/v1/completions", handlers.completions, methods=["POST"]),
        Route("/v1/models", handlers.list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", handlers.get_model, methods=["GET"]),
    ]
    return Dialect(routes, ("/v1/",), ErrorReply.openai_body)


class _Handlers:
    def __init__(self, context: Context) -> None:
        self._models = context.models
        self._settings = context.settings

    async def chat(self, request: Request) -> Response:
        body = parse_body(ChatBody, await read_json(request.receive, self._settings))
        requests = chat_requests(body)
        wants_logprobs = bool(body.logprobs)

        def reply(model: ServedModel, answers: Sequence[Answer]) -> dict[str, Any]:
            header = ReplyHeader.new("chatcmpl", "chat.completion", body.model)
            return chat_reply(header, answers, wants_logprobs, model.engine.tokenizer.token_bytes)

        def chunks(model: ServedModel) -> ChatChunks:
            return ChatChunks(
                ReplyHeader.new("chatcmpl", "chat.completion.chunk", body.model),
                num_choices=len(requests),
                wants_logprobs=wants_logprobs,
                wants_usage=_wants_usage(body),
                token_bytes=model.engine.tokenizer.token_bytes,
            )

        return await self._answer(request, body, requests, reply, chunks)

    async def completions(self, request: Request) -> Response:
        body = parse_body(CompletionBody, await read_json(request.receive, self._settings))
        requests = completion_requests(body)
        header = ReplyHeader.new("cmpl", "text_completion", body.model)
        wants_logprobs = body.logprobs is not None
        num_per_prompt = body.n or 1

        def reply(model: ServedModel, answers: Sequence[Answer]) -> dict[str, Any]:
            token_bytes = model.engine.tokenizer.token_bytes
            return completion_reply(header, answers, num_per_prompt, wants_logprobs, token_bytes)

        def chunks(model: ServedModel) -> CompletionChunks:
            return CompletionChunks(
                header,
                num_choices=len(requests),
                num_per_prompt=num_per_prompt,
                wants_logprobs=wants_logprobs,
                wants_usage=_wants_usage(body),
                token_bytes=model.engine.tokenizer.token_bytes,
            )

        return await self._answer(request, body, requests, reply, chunks)

    async def list_models(self, request: Request) -> Response:
        data = [_model_object(manifest) for manifest in self._models.catalog.list()]
        return JSONResponse({"object": "list", "data": data})

    async def get_model(self, request: Request) -> Response:
        manifest = self._models.find(request.path_params["name"])
        return JSONResponse(_model_object(manifest))

    async def _answer(
        self,
        request: Request,
        body: SamplingBody,
        requests: Sequence[GenerationRequest],
        reply: Callable[[ServedModel, Sequence[Answer]], dict[str, Any]],
        chunks: Callable[[ServedModel], _Chunks],
    ) -> Response:
        """Ask the model, and reply whole or as a stream."""

        async def whole() -> dict[str, Any]:
            async with self._models.use(body.model) as model:
                return reply(model, await collect(model, requests))

        if body.stream:
            frames = self._frames(body.model, requests, chunks)
            return FrameStream(frames, _error_frame, self._settings.keep_alive_s)
        return JSONResponse(await unless_disconnected(request.receive, whole()))

    async def _frames(
        self,
        name: str,
        requests: Sequence[GenerationRequest],
        new_chunks: Callable[[ServedModel], _Chunks],
    ) -> AsyncGenerator[bytes, None]:
        """The opening chunks wait for the engine's first, so that a refusal can be a status."""
        async with contextlib.AsyncExitStack() as stack:
            model = await stack.enter_async_context(self._models.use(name))
            stream = await stack.enter_async_context(
                contextlib.aclosing(stream_all(model, requests))
            )
            chunks = new_chunks(model)
            is_open = False
            async for index, chunk in stream:
                if not is_open:
                    is_open = True
                    for data in chunks.start():
                        yield event(data)
                for data in chunks.add(index, chunk):
                    yield event(data)
            for data in chunks.end():
                yield event(data)
            yield DONE


class _Chunks(Protocol):
    def start(self) -> Iterator[dict[str, Any]]: ...

    def add(self, index: int, chunk: OutputChunk) -> Iterator[dict[str, Any]]: ...

    def end(self) -> Iterator[dict[str, Any]]: ...


def _model_object(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.name,
        "object": "model",
        "created": int(manifest.modified_at),
        "owned_by": "quintet",
    }


def _wants_usage(body: SamplingBody) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


def _error_frame(error: Exception) -> bytes:
    reply = error_reply(error)
    if reply.status >= 500:
        _log.error("a stream ended early", exc_info=error)
    return event(reply.openai_body())
