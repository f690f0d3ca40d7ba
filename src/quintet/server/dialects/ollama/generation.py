"""The routes that ask an engine: generate, chat, embed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quintet.errors import ContextLengthError
from quintet.server.answers import collect
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context
from quintet.server.dialects.ollama.bodies import (
    ChatBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    GenerationBody,
    Options,
)
from quintet.server.dialects.ollama.options import (
    merged_options,
    request_options,
    sampling_params,
)
from quintet.server.dialects.ollama.prompts import chat_prompt, generate_prompt
from quintet.server.dialects.ollama.replies import Reply, empty_reply
from quintet.server.disconnect import unless_disconnected
from quintet.server.errors import ErrorReply, stream_error_reply
from quintet.server.generation import stream_all
from quintet.server.keep_alive import keep_alive_s
from quintet.server.limits import read_json
from quintet.server.requests import ChatPrompt, GenerationRequest, Prompt
from quintet.server.served_model import ServedModel
from quintet.server.streaming import NDJSON, FrameStream, ndjson_line

_NS = 1_000_000_000
_BUSY = "server busy, please try again.  maximum pending requests exceeded"

# The model, held, and the reply to fill with its request.
_Plan: TypeAlias = Callable[[ServedModel, float], Awaitable[tuple[Reply, GenerationRequest]]]


class Generation:
    """Handlers of the routes.

    Args:
        context: the models and limits.
    """

    def __init__(self, context: Context) -> None:
        self._models = context.models
        self._settings = context.settings

    async def generate(self, request: Request) -> Response:
        """POST /api/generate."""
        body = parse_body(GenerateBody, await read_json(request.receive, self._settings))
        prompt = body.prompt
        if not prompt and not body.suffix:
            return await self._load_or_unload(body, "generate")
        return await self._answer(
            request, body, "generate", lambda model: generate_prompt(body, model, prompt or "")
        )

    async def chat(self, request: Request) -> Response:
        """POST /api/chat."""
        body = parse_body(ChatBody, await read_json(request.receive, self._settings))
        if not body.messages:
            return await self._load_or_unload(body, "chat")
        return await self._answer(request, body, "chat", lambda model: chat_prompt(body, model))

    async def embed(self, request: Request) -> Response:
        """POST /api/embed."""
        body = parse_body(EmbedBody, await read_json(request.receive, self._settings))
        inputs = [body.input] if isinstance(body.input, str) else body.input or []
        started_s = time.monotonic()

        async def work() -> dict[str, Any]:
            async with self._models.use(body.model_name, keep_alive_s(body.keep_alive)) as model:
                load_s = time.monotonic() - started_s
                vectors: list[list[float]] = []
                count = 0
                if inputs:
                    output = await model.embed(
                        inputs, dimensions=body.dimensions, truncate=body.truncate is not False
                    )
                    vectors = output.embeddings.tolist()
                    count = output.usage.num_prompt_tokens
            return {
                "model": body.model_name,
                "embeddings": vectors,
                "total_duration": round((time.monotonic() - started_s) * _NS),
                "load_duration": round(load_s * _NS),
                "prompt_eval_count": count,
            }

        return JSONResponse(await unless_disconnected(request.receive, work()))

    async def embeddings(self, request: Request) -> Response:
        """POST /api/embeddings."""
        body = parse_body(EmbeddingsBody, await read_json(request.receive, self._settings))

        async def work() -> dict[str, Any]:
            async with self._models.use(body.model_name, keep_alive_s(body.keep_alive)) as model:
                if not body.prompt:
                    return {"embedding": []}
                output = await model.embed([body.prompt], normalize=False, truncate=True)
            return {"embedding": output.embeddings[0].tolist()}

        return JSONResponse(await unless_disconnected(request.receive, work()))

    async def _load_or_unload(self, body: GenerationBody, kind: Any) -> Response:
        """A request without a prompt: have the model in memory, or, kept for 0 s, out of it."""
        name, keep_s = body.model_name, keep_alive_s(body.keep_alive)
        if keep_s == 0:
            await self._models.unload(name)
            return JSONResponse(empty_reply(kind, name, "unload"))
        await self._models.load(name, keep_s)
        return JSONResponse(empty_reply(kind, name, "load"))

    async def _answer(
        self,
        request: Request,
        body: GenerationBody,
        kind: Any,
        new_prompt: Callable[[ServedModel], Prompt],
    ) -> Response:
        name, keep_s = body.model_name, keep_alive_s(body.keep_alive)
        started_s = time.monotonic()

        async def plan(model: ServedModel) -> tuple[Reply, GenerationRequest]:
            options = merged_options(model.manifest.parameters, body.options)
            prompt = new_prompt(model)
            await _check_context(prompt, options, model)
            reply = Reply(
                kind,
                name,
                model.engine.tokenizer.token_bytes,
                wants_logprobs=bool(body.logprobs),
                load_s=time.monotonic() - started_s,
            )
            params = sampling_params(body, options)
            return reply, GenerationRequest(prompt, params, request_options(body, options))

        async def whole() -> dict[str, Any]:
            async with self._models.use(name, keep_s) as model:
                reply, asked = await plan(model)
                reply.answer = (await collect(model, [asked]))[0]
                return reply.end(is_streamed=False)

        async def frames() -> AsyncGenerator[bytes, None]:
            async with contextlib.AsyncExitStack() as stack:
                model = await stack.enter_async_context(self._models.use(name, keep_s))
                reply, asked = await plan(model)
                chunks = contextlib.aclosing(stream_all(model, [asked]))
                async for _, chunk in await stack.enter_async_context(chunks):
                    for data in reply.add(chunk):
                        yield ndjson_line(data)
                yield ndjson_line(reply.end(is_streamed=True))

        if body.stream is False:
            return JSONResponse(await unless_disconnected(request.receive, whole()))
        return FrameStream(frames(), error_frame, self._settings.keep_alive_s, NDJSON)


def error_body(reply: ErrorReply) -> dict[str, Any]:
    """Ollama's shape: the text alone."""
    return {"error": _BUSY if reply.code == "overloaded" else reply.message}


def error_frame(error: Exception) -> bytes:
    """What a client is told after the first byte."""
    return ndjson_line(error_body(stream_error_reply(error)))


async def _check_context(prompt: Prompt, options: Options, model: ServedModel) -> None:
    """Hold a request to the context it asked for, where that is less than there is.

    Raises:
        ContextLengthError: the prompt is longer; nothing is cut in silence.
    """
    if not options.num_ctx or options.num_ctx >= model.engine.limits.max_model_len:
        return
    if isinstance(prompt, ChatPrompt):
        count = await model.engine.count_tokens(
            prompt.messages, tools=prompt.tools, enable_thinking=prompt.enable_thinking
        )
    else:
        ids = model.engine.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        count = len(ids)
    if count >= options.num_ctx:
        raise ContextLengthError(count + 1, options.num_ctx)
