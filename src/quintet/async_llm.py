"""The Python API for asyncio: the names of `LLM`, awaitable."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from quintet.beams import Beams, BeamSearchOutput
from quintet.chat import (
    ChatOptions,
    ChatRequest,
    Messages,
    ToolChoice,
    Tools,
    unparsed,
)
from quintet.config import DraftSpeculation, EngineConfig, NgramSpeculation, parse_bytes
from quintet.embeddings import Embedding, EmbeddingOutput
from quintet.engine.admission import EngineLimits
from quintet.engine.beam_search import BeamSearchParams
from quintet.engine.client import EngineClient, EngineState
from quintet.engine.loading import Backend, CacheDtype, Dtype, ModelOptions
from quintet.engine.output import Answer, OutputChunk, RequestOutput
from quintet.engine.request import Priority, Request, RequestOptions
from quintet.engine.stats import EngineStats
from quintet.errors import EngineError
from quintet.models import Pooling
from quintet.reranking import Reranking, RerankOutput
from quintet.runtime import (
    Batch,
    Params,
    Prompt,
    Runtime,
    cache_option,
    draft_options,
    ngram_options,
)
from quintet.sampling.params import SamplingParams
from quintet.sharing import load_shared
from quintet.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncLLM:
    """
    A model for asyncio programs.  Safe to use from many tasks; their requests share each step.

    It is loaded on entering `async with`, or with the first call that is awaited, in a
    thread: the event loop stays free.

    Args: as for `LLM`.

    Raises: as for `LLM`; errors of the model's file come when it is loaded.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        backend: Backend = "auto",
        dtype: Dtype = "auto",
        kv_dtype: CacheDtype = "auto",
        num_threads: int | None = None,
        use_mmap: bool = True,
        use_mlock: bool = False,
        max_memory: int | str | None = None,
        packed_cache: bool | str | os.PathLike[str] = False,
        max_model_len: int | None = None,
        kv_cache_bytes: int | None = None,
        num_kv_blocks: int | None = None,
        max_num_seqs: int = EngineConfig.max_num_seqs,
        max_num_batched_tokens: int = EngineConfig.max_num_batched_tokens,
        max_queue: int = EngineConfig.max_queue,
        enable_prefix_cache: bool = True,
        ngram_speculation: NgramSpeculation | bool = False,
        draft_model: DraftSpeculation | str | os.PathLike[str] | None = None,
        seed: int | None = None,
        isolated: bool = False,
        shared: bool = False,
    ) -> None:
        self._model = model
        self._options = ModelOptions(
            backend=backend,
            dtype=dtype,
            kv_dtype=kv_dtype,
            num_threads=num_threads,
            use_mmap=use_mmap,
            use_mlock=use_mlock,
            max_memory=None if max_memory is None else parse_bytes(max_memory, "max_memory"),
            packed_cache=cache_option(packed_cache),
        )
        self._config = EngineConfig(
            max_model_len=max_model_len,
            kv_cache_bytes=kv_cache_bytes,
            num_kv_blocks=num_kv_blocks,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_queue=max_queue,
            enable_prefix_cache=enable_prefix_cache,
            ngram_speculation=ngram_options(ngram_speculation),
            draft_speculation=draft_options(draft_model),
            seed=seed,
        )
        self._isolated = isolated
        self._shared = shared
        self._lock = threading.Lock()
        self._loaded: Runtime | None = None
        self._loading: EngineClient | None = None
        self._is_closed = False

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            EngineError: the model has not been loaded yet.
        """
        return self._loaded_runtime().tokenizer

    @property
    def limits(self) -> EngineLimits:
        """Context length, vocabulary size and the most requests at a time.

        Raises:
            EngineError: the model has not been loaded yet.
        """
        return self._loaded_runtime().client.limits

    async def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[RequestOutput]:
        """Continue prompts; see `LLM.generate`.  Cancelling it aborts them."""
        runtime = await self._runtime()
        requests = await asyncio.to_thread(runtime.requests, prompts, params, **options)
        return await _answers(runtime, requests)

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[OutputChunk]:
        """Continue one prompt, token by token; see `LLM.stream`.

        `aclose` aborts the request; so does the event loop for an iterator left behind.
        """
        return self._chunks(
            lambda runtime: ChatRequest(runtime.request(prompt, params, **options), lambda: None)
        )

    async def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        enable_thinking: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> RequestOutput:
        """The assistant's next message; see `LLM.chat`.  Cancelling it aborts the request."""
        runtime = await self._runtime()
        chat_options = ChatOptions(tools, tool_choice, parallel_tool_calls, enable_thinking)
        chat = await asyncio.to_thread(
            runtime.chat_request, messages, params, chat_options, **options
        )
        return (await _answers(runtime, [chat.request], chat))[0]

    def stream_chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        enable_thinking: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[OutputChunk]:
        """The assistant's next message, token by token; see `LLM.chat` and `stream`."""
        chat_options = ChatOptions(tools, tool_choice, parallel_tool_calls, enable_thinking)
        return self._chunks(
            lambda runtime: runtime.chat_request(messages, params, chat_options, **options)
        )

    async def count_tokens(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
    ) -> int:
        """Tokens of a conversation as the model would read it; see `LLM.count_tokens`."""
        runtime = await self._runtime()
        options = ChatOptions(tools, enable_thinking=enable_thinking)
        return await asyncio.to_thread(runtime.count_tokens, messages, options)

    async def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | None = None,
        *,
        priority: Priority = Priority.NORMAL,
    ) -> list[BeamSearchOutput]:
        """The most probable answers to prompts; see `LLM.beam_search`.  May be cancelled."""
        runtime = await self._runtime()
        beams = Beams(runtime, prompts, params, priority)
        while requests := beams.requests():
            beams.advance(await _answers(runtime, requests))
        return beams.outputs()

    async def embed(
        self,
        texts: Prompt | Sequence[Prompt],
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> EmbeddingOutput:
        """A vector of each text; see `LLM.embed`.  Cancelling it aborts the request."""
        runtime = await self._runtime()
        job = await asyncio.to_thread(
            Embedding,
            runtime,
            texts,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
        await _run_job(runtime, job)
        return job.output()

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool = False,
        instruction: str | None = None,
    ) -> RerankOutput:
        """Documents by how well they answer a query; see `LLM.rerank`.  May be cancelled."""
        runtime = await self._runtime()
        job = await asyncio.to_thread(
            Reranking,
            runtime,
            query,
            documents,
            top_n=top_n,
            truncate=truncate,
            instruction=instruction,
        )
        await _run_job(runtime, job)
        return job.output()

    def stats(self) -> EngineStats:
        """The engine's counters after its latest step.

        Raises:
            EngineError: the model has not been loaded yet.
        """
        return self._loaded_runtime().client.stats()

    async def audit(self) -> None:
        """Have the engine check its books; see `LLM.audit`."""
        runtime = await self._runtime()
        await asyncio.to_thread(runtime.client.audit)

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or its engine has failed."""
        return self._is_closed or (self._loaded is not None and self._loaded.client.is_closed)

    @property
    def state(self) -> EngineState:
        """Whether it takes requests now; "loading" until it is loaded, "restarting" after a crash
        of an isolated engine."""
        if self._is_closed:
            return "closed"
        return "loading" if self._loaded is None else self._loaded.client.state

    async def close(self) -> None:
        """End what is running with EngineError and free the model.  Idempotent."""
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> AsyncLLM:
        await self._runtime()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _chunks(
        self, make_request: Callable[[Runtime], ChatRequest]
    ) -> AsyncIterator[OutputChunk]:
        runtime = await self._runtime()
        # In a thread: templates take time, and constraints may take a second to compile.
        chat = await asyncio.to_thread(make_request, runtime)
        stream = runtime.client.submit(chat.request)
        try:
            async for chunk in stream:
                yield chat.parse(chunk)
        finally:
            stream.abort()

    async def _runtime(self) -> Runtime:
        if self._loaded is None:
            return await asyncio.to_thread(self._load)
        return self._loaded

    def _loaded_runtime(self) -> Runtime:
        if self._loaded is None:
            raise EngineError("the model is not loaded; enter `async with`, or await a call first")
        return self._loaded

    def _load(self) -> Runtime:
        with self._lock:
            if self._is_closed:
                raise EngineError("the engine was closed")
            if self._loaded is None:
                if self._shared:
                    self._loaded = load_shared(
                        self._model, self._options, self._config, isolated=self._isolated
                    )
                else:
                    self._loaded = Runtime.load(
                        self._model,
                        self._options,
                        self._config,
                        isolated=self._isolated,
                        on_process=self._note_process,
                    )
                weakref.finalize(self, self._loaded.close)
            return self._loaded

    def _note_process(self, client: EngineClient) -> None:
        """A load need not be waited for to be given up."""
        self._loading = client
        if self._is_closed:
            client.close()

    def _close(self) -> None:
        self._is_closed = True
        if self._loading is not None:
            self._loading.close()
        with self._lock:
            if self._loaded is not None:
                self._loaded.close()


async def _run_job(runtime: Runtime, job: Embedding | Reranking) -> None:
    stream = runtime.client.embed(job.request)
    stream.max_unread_chunks = None  # all of it is wanted
    try:
        async for chunk in stream:
            job.add(chunk)
    finally:
        stream.abort()


async def _answers(
    runtime: Runtime, requests: list[Request], parser: ChatRequest | None = None
) -> list[RequestOutput]:
    parse = unparsed if parser is None else parser.parse
    outputs = []
    with Batch(runtime.client, requests) as batch:
        while (following := batch.next()) is not None:
            request, stream = following
            answer = Answer(request)
            async for chunk in stream:
                answer.add(parse(chunk))
            outputs.append(answer.output())
    return outputs
