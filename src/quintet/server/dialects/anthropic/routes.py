"""The routes: read the body, ask the engine, answer whole or as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quintet.engine.request import RequestOptions
from quintet.errors import RequestError
from quintet.sampling.params import SamplingParams
from quintet.server.answers import collect
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context, Dialect, Operation
from quintet.server.dialects.anthropic.bodies import Conversation, MessagesBody
from quintet.server.dialects.anthropic.conversation import chat_prompt
from quintet.server.dialects.anthropic.replies import PING, MessageEvents, message
from quintet.server.disconnect import unless_disconnected
from quintet.server.errors import ErrorReply, stream_error_reply
from quintet.server.generation import stream_all
from quintet.server.keep_alive import keep_alive_s
from quintet.server.limits import read_json
from quintet.server.requests import ChatPrompt, GenerationRequest
from quintet.server.served_model import ServedModel
from quintet.server.streaming import EVENTS, FrameFormat, FrameStream, event

_FORMAT = FrameFormat(EVENTS.media_type, PING)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_OPERATIONS: Final = {
    "POST /v1/messages": Operation(MessagesBody),
    "POST /v1/messages/count_tokens": Operation(Conversation),
}


def dialect(context: Context) -> Dialect:
    """Anthropic's interface over these models."""
    handlers = _Handlers(context)
    routes = [
        Route("/v1/messages", handlers.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", handlers.count_tokens, methods=["POST"]),
    ]
    return Dialect("anthropic", routes, ("/v1/messages",), error_body, operations=_OPERATIONS)


def error_body(reply: ErrorReply) -> dict[str, Any]:
    """Anthropic's shape."""
    kind = _TYPES.get(reply.status, "api_error" if reply.status >= 500 else _TYPES[400])
    return {"type": "error", "error": {"type": kind, "message": reply.message}}


class _Handlers:
    def __init__(self, context: Context) -> None:
        self._models = context.models
        self._settings = context.settings

    async def messages(self, request: Request) -> Response:
        body = parse_body(MessagesBody, await read_json(request.receive, self._settings))
        prompt = chat_prompt(body)
        params, set_by_client = _params(body)
        asked = GenerationRequest(prompt, params, _options(body), set_by_client)
        if body.stream:
            frames = self._frames(body, prompt, asked)
            return FrameStream(frames, _error_frame, self._settings.keep_alive_s, _FORMAT)

        async def whole() -> dict[str, Any]:
            async with self._use(body) as model:
                return message(body.model, (await collect(model, [asked]))[0])

        return JSONResponse(await unless_disconnected(request.receive, whole()))

    async def count_tokens(self, request: Request) -> Response:
        body = parse_body(Conversation, await read_json(request.receive, self._settings))
        prompt = chat_prompt(body)
        async with self._use(body) as model:
            return JSONResponse({"input_tokens": await model.count_tokens(prompt)})

    def _use(self, body: Conversation) -> AbstractAsyncContextManager[ServedModel]:
        return self._models.use(body.model, keep_alive_s(body.keep_alive))

    async def _frames(
        self, body: MessagesBody, prompt: ChatPrompt, asked: GenerationRequest
    ) -> AsyncGenerator[bytes, None]:
        async with contextlib.AsyncExitStack() as stack:
            model = await stack.enter_async_context(self._use(body))
            events = MessageEvents(body.model, await model.count_tokens(prompt))
            chunks = contextlib.aclosing(stream_all(model, [asked]))
            is_open = False
            async for _, chunk in await stack.enter_async_context(chunks):
                if not is_open:
                    is_open = True
                    for frame in events.start():
                        yield frame
                for frame in events.add(chunk):
                    yield frame
            for frame in events.end():
                yield frame


def _params(body: MessagesBody) -> tuple[SamplingParams, frozenset[str]]:
    """The parameters, and which of them the client set."""
    values: dict[str, Any] = {
        name: value
        for name in ("temperature", "top_k", "top_p")
        if (value := getattr(body, name)) is not None
    }
    values["max_tokens"] = body.max_tokens
    if body.stop_sequences:
        values["stop"] = body.stop_sequences
    return SamplingParams(**values), frozenset(values)


def _options(body: MessagesBody) -> RequestOptions:
    """A thought ends when its budget is spent; Anthropic's own has to leave room for an answer."""
    thinking = body.thinking
    if thinking is None or thinking.type != "enabled" or thinking.budget_tokens is None:
        return {}
    if thinking.budget_tokens >= body.max_tokens:
        raise RequestError(
            f"expected less than max_tokens, {body.max_tokens}, found {thinking.budget_tokens}",
            parameter="thinking.budget_tokens",
        )
    return {"max_thinking_tokens": thinking.budget_tokens}


def _error_frame(error: Exception) -> bytes:
    return event(error_body(stream_error_reply(error)), "error")
