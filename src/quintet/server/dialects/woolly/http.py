"""The HTTP routes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quintet.errors import QuintetError, RequestError
from quintet.hub.manifest import Manifest
from quintet.server.answers import collect
from quintet.server.bodies import KeepAlive, parse_body
from quintet.server.dialect import Context, Operation
from quintet.server.dialects.ollama.library import Facts, facts, parameter_size
from quintet.server.dialects.woolly.bodies import (
    ChatBody,
    DetokenizeBody,
    EmbeddingsBody,
    GenerateBody,
    LoadBody,
    TokenizeBody,
    UnloadBody,
)
from quintet.server.dialects.woolly.current import CurrentModel
from quintet.server.dialects.woolly.errors import error_body
from quintet.server.dialects.woolly.generation import (
    Clock,
    chat_request,
    finish_reason,
    num_tokens,
    prompt_request,
)
from quintet.server.disconnect import unless_disconnected
from quintet.server.errors import stream_error_reply
from quintet.server.generation import stream_all
from quintet.server.limits import read_json
from quintet.server.requests import GenerationRequest
from quintet.server.streaming import DONE, FrameStream, event


class Handlers:
    """The routes' handlers.

    Args:
        context: models and limits.
        current: which model is meant where none is named.
    """

    def __init__(self, context: Context, current: CurrentModel) -> None:
        self._models = context.models
        self._settings = context.settings
        self._current = current

    def routes(self, prefix: str) -> list[Route]:
        """All of them below a prefix."""
        return [
            Route(f"{prefix}/models", self.list_models, methods=["GET"]),
            Route(f"{prefix}/models/load", self.load, methods=["POST"]),
            Route(f"{prefix}/models/unload", self.unload, methods=["POST"]),
            Route(f"{prefix}/generate", self.generate, methods=["POST"]),
            Route(f"{prefix}/chat", self.chat, methods=["POST"]),
            Route(f"{prefix}/tokenize", self.tokenize, methods=["POST"]),
            Route(f"{prefix}/detokenize", self.detokenize, methods=["POST"]),
            Route(f"{prefix}/embeddings", self.embeddings, methods=["POST"]),
        ]

    def operations(self, prefix: str) -> dict[str, Operation]:
        """What they are told, below a prefix."""
        return {
            f"POST {prefix}/models/load": Operation(LoadBody),
            f"POST {prefix}/models/unload": Operation(UnloadBody, is_body_required=False),
            f"POST {prefix}/generate": Operation(GenerateBody),
            f"POST {prefix}/chat": Operation(ChatBody),
            f"POST {prefix}/tokenize": Operation(TokenizeBody),
            f"POST {prefix}/detokenize": Operation(DetokenizeBody),
            f"POST {prefix}/embeddings": Operation(EmbeddingsBody),
        }

    async def list_models(self, request: Request) -> Response:
        """All models, loaded or not."""
        loaded = {model.name for model in self._models}
        manifests = self._models.catalog.list()
        entries = await asyncio.to_thread(
            lambda: [_entry(manifest, manifest.name in loaded) for manifest in manifests]
        )
        return JSONResponse(entries)

    async def load(self, request: Request) -> Response:
        """Load a model and make it the current one."""
        body = await self._parse(LoadBody, request)
        started_s = time.monotonic()
        await self._current.load(body.name)
        return JSONResponse(
            {
                "success": True,
                "message": "Model loaded successfully",
                "load_time_ms": round(1000 * (time.monotonic() - started_s)),
            }
        )

    async def unload(self, request: Request) -> Response:
        """Unload the current model; an empty body will do."""
        headers = dict(request.headers)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        body = await self._parse(UnloadBody, request) if has_body else UnloadBody()
        await self._current.unload(body.name)
        return JSONResponse({"success": True, "message": "Model unloaded"})

    async def generate(self, request: Request) -> Response:
        """Continue a prompt."""
        body = await self._parse(GenerateBody, request)
        asked = prompt_request(body.prompt, body)
        if body.stream:
            return self._stream(body.model, body.keep_alive, asked)

        async def whole() -> dict[str, Any]:
            async with self._current.use(body.model, body.keep_alive) as model:
                clock = Clock()
                answer = (await collect(model, [asked]))[0]
                count = num_tokens(answer)
                return {
                    "text": answer.text,
                    **clock.times(count),
                    "tokens_per_second": clock.rate(count),
                    "finish_reason": finish_reason(answer),
                }

        return JSONResponse(await unless_disconnected(request.receive, whole()))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        body = await self._parse(ChatBody, request)
        asked = chat_request(body.messages, body)
        if body.stream:
            return self._stream(body.model, body.keep_alive, asked)

        async def whole() -> dict[str, Any]:
            async with self._current.use(body.model, body.keep_alive) as model:
                clock = Clock()
                answer = (await collect(model, [asked]))[0]
                return {
                    "content": answer.text,
                    "role": "assistant",
                    **clock.times(num_tokens(answer)),
                    "finish_reason": finish_reason(answer),
                }

        return JSONResponse(await unless_disconnected(request.receive, whole()))

    async def tokenize(self, request: Request) -> Response:
        """Text to token ids."""
        body = await self._parse(TokenizeBody, request)
        async with self._current.use(body.model, body.keep_alive) as model:
            tokens = await asyncio.to_thread(model.engine.tokenizer.encode, body.text)
        return JSONResponse({"tokens": tokens, "count": len(tokens)})

    async def detokenize(self, request: Request) -> Response:
        """Token ids to text."""
        body = await self._parse(DetokenizeBody, request)
        async with self._current.use(body.model, body.keep_alive) as model:
            vocab_size = model.engine.limits.vocab_size
            if any(token_id >= vocab_size for token_id in body.tokens):
                raise RequestError(f"expected token ids below {vocab_size}", parameter="tokens")
            text = await asyncio.to_thread(model.engine.tokenizer.decode, body.tokens)
        return JSONResponse({"text": text})

    async def embeddings(self, request: Request) -> Response:
        """Vectors of texts."""
        body = await self._parse(EmbeddingsBody, request)
        inputs = [body.input] if isinstance(body.input, str) else body.input

        async def work() -> dict[str, Any]:
            async with self._current.use(body.model, body.keep_alive) as model:
                vectors = (await model.embed(inputs)).embeddings
                return {
                    "embeddings": vectors.tolist(),
                    "dimensions": vectors.shape[1],
                    "model": body.model or model.name,
                }

        return JSONResponse(await unless_disconnected(request.receive, work()))

    def _stream(
        self, name: str | None, keep_alive: KeepAlive | None, asked: GenerationRequest
    ) -> Response:
        async def frames() -> AsyncGenerator[bytes, None]:
            index = 0
            async with contextlib.AsyncExitStack() as stack:
                model = await stack.enter_async_context(self._current.use(name, keep_alive))
                chunks = contextlib.aclosing(stream_all(model, [asked]))
                async for _, chunk in await stack.enter_async_context(chunks):
                    if chunk.text:
                        yield event({"token": chunk.text, "id": index})
                        index += 1
                yield DONE

        return FrameStream(frames(), error_frame, self._settings.keep_alive_s)

    async def _parse(self, kind: type[Any], request: Request) -> Any:
        return parse_body(kind, await read_json(request.receive, self._settings))


def error_frame(error: Exception) -> bytes:
    """What a client is told after the first byte."""
    return event(error_body(stream_error_reply(error)))


def _entry(manifest: Manifest, is_loaded: bool) -> dict[str, Any]:
    """A model in the list; one whose file cannot be read still has its name."""
    found: Facts | None = None
    with contextlib.suppress(QuintetError, OSError):
        found = facts(manifest)
    info = found.model_info if found else {}
    return {
        "name": manifest.name,
        "size": manifest.size_bytes,
        "quantization": found.quantization if found else "",
        "loaded": is_loaded,
        "metadata": {
            "author": info.get("general.author"),
            "parameters": parameter_size(found.num_parameters) if found else None,
            "license": info.get("general.license") or manifest.license,
        },
    }
