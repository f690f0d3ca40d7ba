"""The routes: read the body, ask the engine, answer whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quintet.errors import RequestError
from quintet.server.answers import collect
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context, Dialect, Operation
from quintet.server.dialects.llamacpp.bodies import (
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    GenerationBody,
    InfillBody,
    ModelBody,
    RerankBody,
    TemplateBody,
    TokenizeBody,
)
from quintet.server.dialects.llamacpp.completion import Reply
from quintet.server.dialects.llamacpp.params import (
    asked_parameters,
    request_options,
    sampling_params,
)
from quintet.server.dialects.llamacpp.prompts import infill_prompt, prompts
from quintet.server.dialects.llamacpp.status import props, slots
from quintet.server.dialects.llamacpp.vectors import embed, rerank
from quintet.server.dialects.openai.chat import chat_requests
from quintet.server.disconnect import unless_disconnected
from quintet.server.engines import ServedTokenizer
from quintet.server.errors import ErrorReply, HTTPRefusal, stream_error_reply
from quintet.server.generation import stream_all
from quintet.server.keep_alive import keep_alive_s
from quintet.server.limits import read_json
from quintet.server.requests import ChatPrompt, GenerationRequest
from quintet.server.served_model import ServedModel
from quintet.server.stored import with_defaults, with_stored_messages
from quintet.server.streaming import FrameStream, event

ALIASES = {
    "/chat/completions": "/v1/chat/completions",
    "/responses": "/v1/responses",
    "/models": "/v1/models",
    "/v1/health": "/health",
    "/completions": "/completion",
    "/embeddings": "/embedding",
    "/reranking": "/rerank",
    "/v1/rerank": "/rerank",
    "/v1/reranking": "/rerank",
}
_PATHS = (
    "/completion",
    "/infill",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/embedding",
    "/rerank",
    "/props",
    "/slots",
    "/lora-adapters",
)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_MODEL: Final = {"model": {"type": "string"}}
_OPERATIONS: Final = {
    "POST /completion": Operation(CompletionBody),
    "POST /infill": Operation(InfillBody),
    "POST /tokenize": Operation(TokenizeBody),
    "POST /detokenize": Operation(DetokenizeBody),
    "POST /apply-template": Operation(TemplateBody),
    "POST /embedding": Operation(EmbeddingBody),
    "POST /rerank": Operation(RerankBody),
    "GET /props": Operation(query=_MODEL),
    "POST /props": Operation(statuses=(), summary="Refused"),
    "GET /slots": Operation(query={**_MODEL, "fail_on_no_slot": {"type": "string"}}),
    "POST /slots/{index:int}": Operation(statuses=(), summary="Refused"),
}


def dialect(context: Context) -> Dialect:
    """llama-server's interface over these models."""
    handlers = _Handlers(context)
    routes = [
        Route("/completion", handlers.completion, methods=["POST"]),
        Route("/infill", handlers.infill, methods=["POST"]),
        Route("/tokenize", handlers.tokenize, methods=["POST"]),
        Route("/detokenize", handlers.detokenize, methods=["POST"]),
        Route("/apply-template", handlers.apply_template, methods=["POST"]),
        Route("/embedding", handlers.embedding, methods=["POST"]),
        Route("/rerank", handlers.rerank, methods=["POST"]),
        Route("/props", handlers.get_props, methods=["GET"]),
        Route("/props", _refuse_change, methods=["POST"]),
        Route("/slots", handlers.get_slots, methods=["GET"]),
        Route("/slots/{index:int}", _refuse_slot_action, methods=["POST"]),
        Route("/lora-adapters", _get_adapters, methods=["GET"]),
    ]
    return Dialect("llamacpp", routes, _PATHS, error_body, ALIASES, _OPERATIONS)


def error_body(reply: ErrorReply) -> dict[str, Any]:
    """llama-server's shape, whose code is the HTTP status."""
    kind = _TYPES.get(reply.status, "server_error" if reply.status >= 500 else _TYPES[400])
    if reply.code == "context_length_exceeded":
        kind = "exceed_context_size_error"
    error = {"code": reply.status, "message": reply.message, "type": kind, **reply.details}
    return {"error": error}


class _Handlers:
    def __init__(self, context: Context) -> None:
        self._models = context.models
        self._settings = context.settings

    async def completion(self, request: Request) -> Response:
        body = parse_body(CompletionBody, await self._body(request))
        return await self._generate(
            request, body, lambda tokenizer: prompts(body.prompt, tokenizer)
        )

    async def infill(self, request: Request) -> Response:
        body = parse_body(InfillBody, await self._body(request))
        return await self._generate(
            request, body, lambda tokenizer: [infill_prompt(body, tokenizer)]
        )

    async def tokenize(self, request: Request) -> Response:
        body = parse_body(TokenizeBody, await self._body(request))
        async with self._use(body) as model:
            tokenizer = model.engine.tokenizer
            token_ids = await asyncio.to_thread(
                tokenizer.encode,
                body.content,
                add_special=body.add_special,
                parse_special=body.parse_special,
            )
        tokens = [_piece(token_id, tokenizer) for token_id in token_ids]
        return JSONResponse({"tokens": tokens if body.with_pieces else token_ids})

    async def detokenize(self, request: Request) -> Response:
        body = parse_body(DetokenizeBody, await self._body(request))
        async with self._use(body) as model:
            _check_ids(body.tokens, model, "tokens")
            decode = model.engine.tokenizer.decode
            content = await asyncio.to_thread(decode, body.tokens, skip_special=False)
        return JSONResponse({"content": content})

    async def apply_template(self, request: Request) -> Response:
        body = parse_body(TemplateBody, await self._body(request))
        prompt = chat_requests(body)[0].prompt
        if not isinstance(prompt, ChatPrompt):
            raise RequestError("expected a conversation", parameter="messages")
        options: dict[str, Any] = {}
        if prompt.tools:
            options["tools"] = prompt.tools
        if prompt.enable_thinking is not None:
            options["enable_thinking"] = prompt.enable_thinking
        keep_s = keep_alive_s(body.keep_alive)
        async with self._models.use(self._name(body.model), keep_s) as model:
            render = model.engine.tokenizer.render_chat
            messages = with_stored_messages(prompt, model.manifest).messages
            text = await asyncio.to_thread(render, messages, **options)
        return JSONResponse({"prompt": text})

    async def embedding(self, request: Request) -> Response:
        body = parse_body(EmbeddingBody, await self._body(request))

        async def work() -> Any:
            async with self._use(body) as model:
                return await embed(body, model)

        return JSONResponse(await unless_disconnected(request.receive, work()))

    async def rerank(self, request: Request) -> Response:
        body = parse_body(RerankBody, await self._body(request))

        async def work() -> Any:
            async with self._use(body) as model:
                return await rerank(body, model)

        return JSONResponse(await unless_disconnected(request.receive, work()))

    async def get_props(self, request: Request) -> Response:
        async with self._models.use(self._name(request.query_params.get("model"))) as model:
            return JSONResponse(props(model))

    async def get_slots(self, request: Request) -> Response:
        async with self._models.use(self._name(request.query_params.get("model"))) as model:
            seats = slots(model)
        if "fail_on_no_slot" in request.query_params and all(s["is_processing"] for s in seats):
            raise HTTPRefusal(503, "no slot available", code="no_slot")
        return JSONResponse(seats)

    async def _body(self, request: Request) -> Any:
        return await read_json(request.receive, self._settings)

    def _use(self, body: ModelBody) -> AbstractAsyncContextManager[ServedModel]:
        return self._models.use(self._name(body.model), keep_alive_s(body.keep_alive))

    def _name(self, name: Any) -> str:
        """The model named, the one that is loaded, or the first there is."""
        if isinstance(name, str) and name:
            return name
        names = [model.name for model in self._models]
        names += [manifest.name for manifest in self._models.catalog.list()]
        if not names:
            raise RequestError("expected the name of a model", parameter="model")
        return names[0]

    async def _generate(
        self,
        request: Request,
        body: GenerationBody,
        encode: Callable[[ServedTokenizer], list[list[int]]],
    ) -> Response:
        name = self._name(body.model)
        if body.stream:
            frames = self._frames(name, body, encode)
            return FrameStream(frames, _error_frame, self._settings.keep_alive_s)

        async def whole() -> Any:
            async with self._replies(name, body, encode) as (model, replies, requests):
                answers = await collect(model, requests)
            for reply, answer in zip(replies, answers, strict=True):
                reply.answer = answer
            ends = [reply.end(is_streamed=False) for reply in replies]
            return ends[0] if len(ends) == 1 else ends

        return JSONResponse(await unless_disconnected(request.receive, whole()))

    async def _frames(
        self,
        name: str,
        body: GenerationBody,
        encode: Callable[[ServedTokenizer], list[list[int]]],
    ) -> AsyncGenerator[bytes, None]:
        """Chunks as they come, each prompt's last object at its end; no [DONE] on this route."""
        async with contextlib.AsyncExitStack() as stack:
            model, replies, requests = await stack.enter_async_context(
                self._replies(name, body, encode)
            )
            chunks = contextlib.aclosing(stream_all(model, requests))
            async for index, chunk in await stack.enter_async_context(chunks):
                for data in replies[index].add(chunk):
                    yield event(data)
                if chunk.finish_reason is not None:
                    yield event(replies[index].end(is_streamed=True))

    @contextlib.asynccontextmanager
    async def _replies(
        self,
        name: str,
        body: GenerationBody,
        encode: Callable[[ServedTokenizer], list[list[int]]],
    ) -> AsyncGenerator[tuple[ServedModel, list[Reply], list[GenerationRequest]], None]:
        """The model, held, and for each prompt of the body a reply to fill and its request."""
        async with self._models.use(name, keep_alive_s(body.keep_alive)) as model:
            tokenizer = model.engine.tokenizer
            all_ids = await asyncio.to_thread(encode, tokenizer)

            def encode_text(text: str) -> list[int]:
                return tokenizer.encode(text, add_special=False)

            params, asked = sampling_params(body, encode_text), asked_parameters(body)
            requests = [
                with_defaults(
                    GenerationRequest(ids, params, request_options(body), asked), model.manifest
                )
                for ids in all_ids
            ]
            replies = [
                Reply(body, request.params, index, ids, model.name, tokenizer)
                for index, (ids, request) in enumerate(zip(all_ids, requests, strict=True))
            ]
            yield model, replies, requests


def _check_ids(token_ids: list[int], model: ServedModel, parameter: str) -> None:
    vocab_size = model.engine.limits.vocab_size
    for token_id in token_ids:
        if token_id >= vocab_size:
            raise RequestError(
                f"expected token ids below {vocab_size}, found {token_id}", parameter=parameter
            )


def _piece(token_id: int, tokenizer: ServedTokenizer) -> dict[str, Any]:
    """A token with its text, or with its bytes where they are no whole characters."""
    raw = tokenizer.token_bytes(token_id)
    try:
        return {"id": token_id, "piece": raw.decode()}
    except UnicodeDecodeError:
        return {"id": token_id, "piece": list(raw)}


async def _refuse_change(request: Request) -> Response:
    raise HTTPRefusal(501, "properties cannot be changed over HTTP", code="not_supported")


async def _refuse_slot_action(request: Request) -> Response:
    raise HTTPRefusal(
        501, "slots cannot be saved: the prefix cache is shared by all", code="not_supported"
    )


async def _get_adapters(request: Request) -> Response:
    return JSONResponse([])


def _error_frame(error: Exception) -> bytes:
    return event(error_body(stream_error_reply(error)))
