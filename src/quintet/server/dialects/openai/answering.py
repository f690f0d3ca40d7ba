"""Ask a model, and reply whole or as a stream of events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quintet.server.answers import collect
from quintet.server.dialect import Context
from quintet.server.dialects.openai.bodies import RequestBody
from quintet.server.dialects.openai.replies import Work
from quintet.server.disconnect import unless_disconnected
from quintet.server.errors import stream_error_reply
from quintet.server.generation import stream_all
from quintet.server.keep_alive import keep_alive_s
from quintet.server.served_model import ServedModel
from quintet.server.streaming import DONE, FrameStream, event

Plan: TypeAlias = Callable[[ServedModel], Awaitable[Work]]


async def answer(context: Context, request: Request, body: RequestBody, plan: Plan) -> Response:
    """Load the model if need be, have the work done, and reply as the client wants it."""
    keep_s = keep_alive_s(body.keep_alive)

    async def whole() -> dict[str, Any]:
        async with context.models.use(body.model, keep_s) as model:
            work = await plan(model)
            return work.reply(await collect(model, work.requests))

    if body.stream:
        frames = _frames(context, body.model, keep_s, plan)
        return FrameStream(frames, error_frame, context.settings.keep_alive_s)
    return JSONResponse(await unless_disconnected(request.receive, whole()))


async def _frames(
    context: Context, name: str, keep_s: float | None, plan: Plan
) -> AsyncGenerator[bytes, None]:
    """The opening chunks wait for the engine's first, so that a refusal can be a status."""
    async with contextlib.AsyncExitStack() as stack:
        model = await stack.enter_async_context(context.models.use(name, keep_s))
        work = await plan(model)
        stream = await stack.enter_async_context(
            contextlib.aclosing(stream_all(model, work.requests))
        )
        chunks = work.chunks()
        is_open = False
        async for index, chunk in stream:
            if not is_open:
                is_open = True
                for data in chunks.start():
                    yield event(data)
            for data in chunks.add(index * work.requests[index].params.n + chunk.index, chunk):
                yield event(data)
        for data in chunks.end():
            yield event(data)
        yield DONE


def error_frame(error: Exception) -> bytes:
    """What a client is told after the first byte."""
    return event(stream_error_reply(error).openai_body())
