"""What the server asks of a loaded model, and requests as it hands them over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from quintet.engine.client import EngineState
from quintet.engine.output import OutputChunk
from quintet.engine.stats import EngineStats
from quintet.errors import EngineError
from quintet.sampling.params import SamplingParams
from quintet.server.disconnect import cancel


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, to be rendered by the model's chat template.

    Args:
        messages: role and content, in the template's own shape.
        tools: function definitions shown to the template.
        enable_thinking: for templates that know the switch; None leaves their default.
        tool_choice: "auto", "none", "required", or an object that names a function.
        parallel_tool_calls: there may be several calls.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    enable_thinking: bool | None = None
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True


Prompt: TypeAlias = "str | list[int] | ChatPrompt"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate."""

    prompt: Prompt
    params: SamplingParams


class TokenNames(Protocol):
    """The part of a tokenizer the server uses."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for."""


class ServedEngine(Protocol):
    """The part of `AsyncLLM` the server uses.

    A stream that is closed early aborts its request at the next step.
    """

    def stream(self, prompt: str | list[int], params: SamplingParams) -> AsyncIterator[OutputChunk]:
        """Continue a prompt."""

    def stream_chat(
        self,
        messages: list[dict[str, Any]],
        params: SamplingParams,
        *,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        enable_thinking: bool | None = None,
    ) -> AsyncIterator[OutputChunk]:
        """Answer a conversation."""

    @property
    def tokenizer(self) -> TokenNames:
        """The model's tokenizer."""

    def stats(self) -> EngineStats:
        """The engine's counters."""

    async def close(self) -> None:
        """End what is running with EngineError and free the model.  Idempotent."""

    @property
    def state(self) -> EngineState:
        """Whether the engine takes requests now."""


@dataclass(slots=True)
class ServedModel:
    """
    A loaded model as the server knows it.

    Args:
        name: what clients call it.
        engine: what answers.
        loaded_at: seconds since 1970.
        num_waiting: answers whose next chunk is awaited from the engine now.
    """

    name: str
    engine: ServedEngine
    loaded_at: int
    num_waiting: int = 0


async def stream_all(
    model: ServedModel, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[tuple[int, OutputChunk], None]:
    """Run requests together; yield (index of the request, chunk) as chunks come.

    The first error ends all of them; so does closing this generator.

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
    engine, prompt = model.engine, request.prompt
    if isinstance(prompt, ChatPrompt):
        chunks = engine.stream_chat(
            prompt.messages,
            request.params,
            tools=prompt.tools,
            tool_choice=prompt.tool_choice,
            parallel_tool_calls=prompt.parallel_tool_calls,
            enable_thinking=prompt.enable_thinking,
        )
    else:
        chunks = engine.stream(prompt, request.params)
    try:
        while True:
            model.num_waiting += 1
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            finally:
                model.num_waiting -= 1
            if chunk.finish_reason == "abort":
                raise EngineError("the request was aborted")
            yield chunk
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
