"""The routes under /v1: read the body, ask the engine, answer whole or as a stream."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from quintet.engine.output import OutputChunk
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
from quintet.server.dialects.openai.replies import Choice, ReplyHeader
from quintet.server.disconnect import unless_disconnected
from quintet.server.engines import GenerationRequest, ServedModel, stream_all
from quintet.server.errors import error_reply
from quintet.server.limits import read_json
from quintet.server.models import Models
from quintet.server.settings import Settings
from quintet.server.sse import DONE, EventStream, event

_log = logging.getLogger(__name__)


def routes(models: Models, settings: Settings) -> list[Route]:
    """The dialect's routes over these models."""
    handlers = _Handlers(models, settings)
    return [
        Route("/v1/chat/completions", handlers.chat, methods=["POST"]),
        Route("/v1/completions", handlers.completions, methods=["POST"]),
        Route("/v1/models", handlers.list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", handlers.get_model, methods=["GET"]),
    ]


class _Handlers:
    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._settings = settings

    async def chat(self, request: Request) -> Response:
        body = parse_body(ChatBody, await read_json(request.receive, self._settings))
        model = self._models.get(body.model)
        requests = chat_requests(body)
        wants_logprobs = bool(body.logprobs)
        if not body.stream:
            answers = await self._answers(request, model, requests)
            header = ReplyHeader.new("chatcmpl", "chat.completion", body.model)
            return JSONResponse(
                chat_reply(header, answers, wants_logprobs, model.engine.tokenizer.token_bytes)
            )
        chunks = ChatChunks(
            ReplyHeader.new("chatcmpl", "chat.completion.chunk", body.model),
            num_choices=len(requests),
            wants_logprobs=wants_logprobs,
            wants_usage=_wants_usage(body),
            token_bytes=model.engine.tokenizer.token_bytes,
        )
        return self._stream(chunks, model, requests)

    async def completions(self, request: Request) -> Response:
        body = parse_body(CompletionBody, await read_json(request.receive, self._settings))
        model = self._models.get(body.model)
        requests = completion_requests(body)
        header = ReplyHeader.new("cmpl", "text_completion", body.model)
        wants_logprobs = body.logprobs is not None
        num_per_prompt = body.n or 1
        if not body.stream:
            answers = await self._answers(request, model, requests)
            return JSONResponse(
                completion_reply(
                    header,
                    answers,
                    num_per_prompt,
                    wants_logprobs,
                    model.engine.tokenizer.token_bytes,
                )
            )
        chunks = CompletionChunks(
            header,
            num_choices=len(requests),
            num_per_prompt=num_per_prompt,
            wants_logprobs=wants_logprobs,
            wants_usage=_wants_usage(body),
            token_bytes=model.engine.tokenizer.token_bytes,
        )
        return self._stream(chunks, model, requests)

    async def list_models(self, request: Request) -> Response:
        data = [_model_object(model) for model in self._models]
        return JSONResponse({"object": "list", "data": data})

    async def get_model(self, request: Request) -> Response:
        return JSONResponse(_model_object(self._models.get(request.path_params["name"])))

    async def _answers(
        self, request: Request, model: ServedModel, requests: Sequence[GenerationRequest]
    ) -> list[Choice]:
        return await unless_disconnected(request.receive, _collect(model, requests))

    def _stream(
        self, chunks: _Chunks, model: ServedModel, requests: Sequence[GenerationRequest]
    ) -> Response:
        return _StreamResponse(
            EventStream(_frames(chunks, model, requests), _error_frame, self._settings.keep_alive_s)
        )


class _Chunks(Protocol):
    def start(self) -> Iterator[dict[str, Any]]: ...

    def add(self, index: int, chunk: OutputChunk) -> Iterator[dict[str, Any]]: ...

    def end(self) -> Iterator[dict[str, Any]]: ...


class _StreamResponse(Response):
    """Lets a route return an event stream, which sends its own start."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__()
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stream(scope, receive, send)


async def _collect(model: ServedModel, requests: Sequence[GenerationRequest]) -> list[Choice]:
    answers = [Choice() for _ in requests]
    async with contextlib.aclosing(stream_all(model, requests)) as stream:
        async for index, chunk in stream:
            answers[index].add(chunk)
    return answers


async def _frames(
    chunks: _Chunks, model: ServedModel, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[bytes, None]:
    """The opening chunks wait for the engine's first, so that a refusal can still be a status."""
    is_open = False
    async with contextlib.aclosing(stream_all(model, requests)) as stream:
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


def _model_object(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.loaded_at,
        "owned_by": "quintet",
    }


def _wants_usage(body: SamplingBody) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


def _error_frame(error: Exception) -> bytes:
    reply = error_reply(error)
    if reply.status >= 500:
        _log.error("a stream ended early", exc_info=error)
    return event(reply.openai_body())
