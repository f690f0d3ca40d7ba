"""Requests on their way through an engine: run together, their chunks as they come."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Iterator, Sequence

from quintet.engine.output import OutputChunk, Usage
from quintet.engine.request import RequestOptions
from quintet.errors import EngineError
from quintet.server.disconnect import cancel
from quintet.server.exchange import cache_salt, note_tokens
from quintet.server.requests import ChatPrompt, GenerationRequest
from quintet.server.served_model import ServedModel
from quintet.server.stored import with_defaults


async def stream_all(
    model: ServedModel, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[tuple[int, OutputChunk], None]:
    """Run requests together; yield (index of the request, chunk) as chunks come.

    `OutputChunk.index` tells the answers of one request apart; each of them has an end.  The
    first error ends all requests; so does closing this generator.

    Raises:
        EngineError: a request ended without being finished.
    """
    if len(requests) == 1:
        async with contextlib.aclosing(_stream_one(model, requests[0])) as chunks:
            async for chunk in chunks:
                yield 0, chunk
        return
    # One slot per stream: a client that reads slowly slows the pumps, not the memory.
    ready: asyncio.Queue[tuple[int, OutputChunk | Exception | None]] = asyncio.Queue(len(requests))

    async def pump(index: int) -> None:
        try:
            async with contextlib.aclosing(_stream_one(model, requests[index])) as chunks:
                async for chunk in chunks:
                    await ready.put((index, chunk))
        except Exception as error:  # noqa: BLE001 - raised again by the consumer below
            await ready.put((index, error))
        else:
            await ready.put((index, None))

    pumps = [asyncio.ensure_future(pump(index)) for index in range(len(requests))]
    try:
        num_running = len(pumps)
        while num_running:
            index, item = await ready.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_running -= 1
            else:
                yield index, item
    finally:
        await cancel(*pumps)


async def _stream_one(
    model: ServedModel, request: GenerationRequest
) -> AsyncGenerator[OutputChunk, None]:
    request = with_defaults(request, model.manifest)
    engine, prompt, options = model.engine, request.prompt, _served(model, request.options)
    if isinstance(prompt, ChatPrompt):
        chunks = engine.stream_chat(
            prompt.messages,
            request.params,
            tools=prompt.tools,
            tool_choice=prompt.tool_choice,
            parallel_tool_calls=prompt.parallel_tool_calls,
            enable_thinking=prompt.enable_thinking,
            **options,
        )
    else:
        chunks = engine.stream(prompt, request.params, **options)
    ends = _Ends(request.params.n)
    try:
        while True:
            try:
                with model.awaited():
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            if chunk.finish_reason == "abort":
                raise EngineError("the request was aborted")
            if chunk.usage is not None and chunk.index == 0:  # its answers share the prompt
                note_tokens(prompt=chunk.usage.num_prompt_tokens)
            note_tokens(generated=len(chunk.token_ids))
            yield chunk
            for end in ends.missing_after(chunk):
                yield end
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def _served(model: ServedModel, options: RequestOptions) -> RequestOptions:
    """The options of a request with what the server adds: deadlines, and whose prefixes it may
    find in the cache, since how soon a first token comes tells what others have asked."""
    options = {**options, "cache_salt": cache_salt() + options.get("cache_salt", "")}
    if model.request_timeout_s is not None:
        asked_s = options.get("timeout_s") or math.inf
        options["timeout_s"] = min(asked_s, model.request_timeout_s)
    if model.queue_timeout_s is not None:
        options["queue_timeout_s"] = model.queue_timeout_s
    return options


class _Ends:
    """Ends of the answers that the engine drops without a word: a late request has one for all."""

    def __init__(self, num_answers: int) -> None:
        self._num_generated_tokens = [0] * num_answers
        self._unfinished = set(range(num_answers))

    def missing_after(self, chunk: OutputChunk) -> Iterator[OutputChunk]:
        self._num_generated_tokens[chunk.index] += len(chunk.token_ids)
        if chunk.finish_reason is None:
            return
        self._unfinished.discard(chunk.index)
        if not chunk.is_last:
            return
        for index in sorted(self._unfinished):
            usage = chunk.usage and Usage(
                chunk.usage.num_prompt_tokens,
                chunk.usage.num_cached_tokens,
                self._num_generated_tokens[index],
            )
            yield OutputChunk(
                chunk.request_id,
                finish_reason=chunk.finish_reason,
                usage=usage,
                timings=chunk.timings,
                index=index,
            )
