"""What the server asks of a loaded model, and requests as it hands them over."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quintet.engine.admission import EngineLimits
from quintet.engine.client import EngineState
from quintet.engine.output import OutputChunk, Usage
from quintet.engine.request import RequestOptions
from quintet.engine.stats import EngineStats
from quintet.errors import EngineError
from quintet.hub.manifest import Manifest
from quintet.sampling.params import SamplingParams
from quintet.server.disconnect import cancel
from quintet.server.exchange import cache_salt, note_tokens

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
    """The answers to generate to one prompt, `params.n` of them.

    Args:
        prompt: text, token ids or a conversation.
        params: how to sample and when to stop.
        options: how it is served; see `engine.request.RequestOptions`.
    """

    prompt: Prompt
    params: SamplingParams
    options: RequestOptions = field(default_factory=RequestOptions)


class ServedTokenizer(Protocol):
    """The part of `Tokenizer` the server uses."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for."""

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of token ids."""

    def token_to_id(self, text: str) -> int | None:
        """The id of a token by its spelling."""

    def is_special(self, token_id: int) -> bool:
        """Whether this is a control token."""

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """A conversation as the model wants to read it."""

    @property
    def bos_token(self) -> str:
        """The spelling of BOS, or an empty string."""

    @property
    def eos_token(self) -> str:
        """The spelling of EOS, or an empty string."""

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """Jinja sources by name; "default" is the one."""

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """Token ids of a conversation as the model wants to read it."""


class EmbeddingUsage(Protocol):
    """Tokens that embeddings took."""

    @property
    def num_prompt_tokens(self) -> int:
        """Of all inputs."""


class Embeddings(Protocol):
    """Vectors of texts."""

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """[num_inputs, num_dimensions] float32, finite."""

    @property
    def usage(self) -> EmbeddingUsage:
        """Tokens they took."""


class RankedDocument(Protocol):
    """A document and how well it answers."""

    @property
    def index(self) -> int:
        """Of the document, as they were given."""

    @property
    def relevance_score(self) -> float:
        """The more the better."""


class Ranking(Protocol):
    """Documents, the best first."""

    @property
    def results(self) -> Sequence[RankedDocument]:
        """As many as were asked for."""

    @property
    def usage(self) -> EmbeddingUsage:
        """Tokens they took."""


class ServedEngine(Protocol):
    """The part of `AsyncLLM` the server uses.

    A stream that is closed early aborts its request at the next step.
    """

    def stream(
        self, prompt: str | list[int], params: SamplingParams, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[OutputChunk]:
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
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[OutputChunk]:
        """Answer a conversation."""

    async def count_tokens(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        enable_thinking: bool | None = None,
    ) -> int:
        """Tokens of a conversation as the model would read it."""

    async def embed(
        self,
        inputs: Sequence[str | list[int]],
        *,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = False,
    ) -> Embeddings:
        """The vectors of texts or token ids, of length 1 each, cut to `dimensions`."""

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None
    ) -> Ranking:
        """Documents by how well they answer a query."""

    @property
    def tokenizer(self) -> ServedTokenizer:
        """The model's tokenizer."""

    @property
    def limits(self) -> EngineLimits:
        """Context length, vocabulary size and the most requests at a time."""

    def stats(self) -> EngineStats:
        """The engine's counters."""

    async def close(self) -> None:
        """End what is running with EngineError and free the model.  Idempotent."""

    @property
    def state(self) -> EngineState:
        """Whether the engine takes requests now."""


@dataclass(slots=True, eq=False)
class ServedModel:
    """
    A loaded model as the server knows it.

    Args:
        manifest: its name, its file, and what its owner set.
        engine: what answers.
        loaded_at: seconds since 1970.
        load_s: seconds it took to load.
        num_waiting: answers whose next chunk is awaited from the engine now.
        num_users: requests that hold it now.
        keep_alive_s: seconds it stays in memory after the last of them.
        last_used_s: when that ended, on `time.monotonic`'s clock.
        is_leaving: it is being unloaded and takes no more requests.
        request_timeout_s: the longest a request may take; None: as long as it takes.
    """

    manifest: Manifest
    engine: ServedEngine
    loaded_at: int
    load_s: float = 0.0
    num_waiting: int = 0
    num_users: int = 0
    keep_alive_s: float = math.inf
    last_used_s: float = field(default_factory=time.monotonic)
    is_leaving: bool = False
    request_timeout_s: float | None = None

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.manifest.name

    @property
    def expires_at_s(self) -> float:
        """When it may be let go if nobody asks for it, on `time.monotonic`'s clock."""
        return self.last_used_s + self.keep_alive_s

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """The engine owes an answer, or its next chunk, until the block ends."""
        self.num_waiting += 1
        try:
            yield
        finally:
            self.num_waiting -= 1

    async def embed(self, inputs: Sequence[str | list[int]], **options: Any) -> Embeddings:
        """See `ServedEngine.embed`."""
        with self.awaited():
            output = await self.engine.embed(inputs, **options)
        note_tokens(prompt=output.usage.num_prompt_tokens)
        return output

    async def rerank(self, query: str, documents: Sequence[str], **options: Any) -> Ranking:
        """See `ServedEngine.rerank`."""
        with self.awaited():
            output = await self.engine.rerank(query, documents, **options)
        note_tokens(prompt=output.usage.num_prompt_tokens)
        return output

    @property
    def num_bytes(self) -> int:
        """Memory it takes: as its process says, or at least its file."""
        return max(self.manifest.size_bytes, self.engine.stats().resident_bytes)


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
    """The options of a request with what the server adds: a deadline, and whose prefixes it may
    find in the cache, since how soon a first token comes tells what others have asked."""
    options = {**options, "cache_salt": cache_salt() + options.get("cache_salt", "")}
    if model.request_timeout_s is not None:
        asked_s = options.get("timeout_s") or math.inf
        options["timeout_s"] = min(asked_s, model.request_timeout_s)
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
