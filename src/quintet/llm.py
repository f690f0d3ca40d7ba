"""The Python API: a model in a variable."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
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
from quintet.engine.client import EngineState
from quintet.engine.loading import Backend, CacheDtype, Dtype, ModelOptions
from quintet.engine.output import Answer, OutputChunk, RequestOutput
from quintet.engine.request import Priority, Request, RequestOptions
from quintet.engine.stats import EngineStats
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


class LLM:
    """
    A loaded model.  Safe to use from several threads; their requests share each step.

    Close it, or use it as a context manager, to give its memory back at once.

    Args:
        model: the name of a packaged model ("demo"), or a path to a GGUF file, a
            safetensors file or a Hugging Face directory.
        backend: what computes: "cpu" or "reference"; see `ModelOptions`.
        dtype: of the weights: "auto" keeps what the file has.
        kv_dtype: of the KV cache; "auto" is bfloat16, or float32 where `dtype` is; "int8" takes
            half of bfloat16's memory, and rounds attention by up to 1 %.
        num_threads: None for one per physical core this process may use.
        use_mmap: map the model's files rather than read them; see `ModelOptions` for this and the
            next three.
        use_mlock: keep the weights in physical memory.
        max_memory: bytes, or a text such as "4GiB", that weights, KV cache and buffers may take.
        packed_cache: True, or a folder, to keep the packed weights for a faster next start.
        max_model_len: tokens of prompt and answer together; see `EngineConfig` for this
            and what follows.
        kv_cache_bytes: size of the KV cache.
        num_kv_blocks: the same in blocks of 16 tokens; one of the two.
        max_num_seqs: sequences that may run in one step.
        max_num_batched_tokens: new tokens of one step.
        max_queue: requests that may wait.
        enable_prefix_cache: share the KV blocks of common prefixes.
        ngram_speculation: True, or `NgramSpeculation`, to look up what followed the latest
            tokens before, guess that it follows again, and check several guesses in one step.
            The answers stay the same to the last bit.
        draft_model: name or path of a smaller model with the same vocabulary that guesses, or
            `DraftSpeculation`.
        seed: makes requests without a seed of their own repeatable.
        isolated: run the model in a process of its own: a crash ends its requests with
            EngineError and it is loaded again, and `close` gives all of its memory back.  Chat
            templates and constraints get processes, too, with limits of time and memory.
        shared: use what another of this process has loaded of this file in these formats, if its
            sizes are enough, and let others use this; `close` ends this one's requests, and the
            last one's frees the model.  Not with a seed.

    Raises:
        ModelNotFoundError: no such name or path; the names there are are listed.
        ModelFormatError, UnsupportedModelError: the file is broken, or not ours yet.
        RequestError: an option out of range.
        CapacityError: weights or KV cache do not fit in memory.
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
        options = ModelOptions(
            backend=backend,
            dtype=dtype,
            kv_dtype=kv_dtype,
            num_threads=num_threads,
            use_mmap=use_mmap,
            use_mlock=use_mlock,
            max_memory=None if max_memory is None else parse_bytes(max_memory, "max_memory"),
            packed_cache=cache_option(packed_cache),
        )
        config = EngineConfig(
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
        load = load_shared if shared else Runtime.load
        self._runtime = load(model, options, config, isolated=isolated)
        # Should nobody call close: at the latest when the interpreter exits.
        self._finalizer = weakref.finalize(self, self._runtime.close)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._runtime.tokenizer

    @property
    def limits(self) -> EngineLimits:
        """Context length, vocabulary size and the most requests at a time."""
        return self._runtime.client.limits

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or its engine has failed."""
        return self._runtime.client.is_closed

    @property
    def state(self) -> EngineState:
        """Whether it takes requests now; "restarting" after a crash of an isolated engine."""
        return self._runtime.client.state

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[RequestOutput]:
        """
        Continue prompts.

        Args:
            prompts: one or several; each a text or a list of token ids.  A text gets the
                special tokens its model wants around it (BOS), and text in it that spells
                a control token is that token; for text of unknown origin use `chat`, or
                encode it yourself with `parse_special=False`.
            params: for all prompts, or one for each.
            options: `priority`, `timeout_s`, `overflow` and `num_keep_tokens`; see `Request`.

        Returns:
            An output per prompt, in order.

        Raises:
            RequestError: a prompt or parameter that cannot be served (ContextLengthError: its
                length); nothing has been computed then.
            CapacityError: requests of other threads fill the queue.
            EngineError: a request failed, or the model is closed; the others are aborted.
        """
        return self._answers(self._runtime.requests(prompts, params, **options))

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        **options: Unpack[RequestOptions],
    ) -> Iterator[OutputChunk]:
        """
        Continue one prompt, token by token.

        Closing the iterator, or leaving a `for` over it, aborts the request.

        Args, Raises: as for `generate`; what the engine raises comes while iterating.
        """
        return self._chunks(self._runtime.request(prompt, params, **options))

    def chat(
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
        """
        The assistant's next message.

        Args:
            messages: the conversation; each has a role and a content, and what else the
                model's chat template reads.  Their text never becomes control tokens.
            params: as for `generate`.
            tools: JSON schemas of functions, for the template; see `ChatOptions` for this and
                what follows.  Their calls are in the output's `tool_calls`.
            tool_choice: "auto", "none", "required", or one function by name, as OpenAI has it.
            parallel_tool_calls: there may be several calls.
            enable_thinking: for templates that ask; None leaves it to them.
            options: `priority`, `timeout_s`, `overflow` and `num_keep_tokens`; see `Request`.

        Returns:
            The answer, its thought in `reasoning`.

        Raises: as for `generate`; RequestError also where the template refuses the messages.
        """
        chat_options = ChatOptions(tools, tool_choice, parallel_tool_calls, enable_thinking)
        chat = self._runtime.chat_request(messages, params, chat_options, **options)
        return self._answers([chat.request], chat)[0]

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
    ) -> Iterator[OutputChunk]:
        """The assistant's next message, token by token; see `chat` and `stream`."""
        chat_options = ChatOptions(tools, tool_choice, parallel_tool_calls, enable_thinking)
        chat = self._runtime.chat_request(messages, params, chat_options, **options)
        return self._chunks(chat.request, chat)

    def count_tokens(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
    ) -> int:
        """
        Tokens of a conversation as the model would read it, which may be more than it can.

        Raises:
            RequestError: the template refuses the messages, or the tools make no sense.
        """
        options = ChatOptions(tools, enable_thinking=enable_thinking)
        return self._runtime.count_tokens(messages, options)

    def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | None = None,
        *,
        priority: Priority = Priority.NORMAL,
    ) -> list[BeamSearchOutput]:
        """
        The most probable answers to prompts, rather than random ones.

        Each step is a request per answer in the running, which finds what it has in common with
        the others in the prefix cache; without that cache every step computes all anew.

        Args:
            prompts: as for `generate`.
            params: for all prompts.
            priority: against other requests of this model.

        Returns:
            An output per prompt, in order.

        Raises: as for `generate`.
        """
        beams = Beams(self._runtime, prompts, params, priority)
        while requests := beams.requests():
            beams.advance(self._answers(requests))
        return beams.outputs()

    def embed(
        self,
        texts: Prompt | Sequence[Prompt],
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> EmbeddingOutput:
        """
        A vector of each text.

        Each has the same bits whatever other texts are embedded with it.  Encoders and decoders
        embed alike, the latter by what they would go on from.

        Args:
            texts: one or several; each a text or a list of token ids.  A text gets the special
                tokens its model wants around it, and never becomes one.  What the model wants
                said before it, as "search_query: ", is the caller's to write.
            pooling: what makes a text's rows one vector: "mean", "cls" (the first), "last",
                "max", or "rank" (what a classifier makes of it).  None: as the model's file
                says, or else "mean" for encoders and "last" for decoders.
            normalize: to length 1, so that a dot product is the cosine.
            dimensions: of the vector, cut before it is normalised, for models that are trained
                for that.  Source: Kusupati et al. 2022, arXiv:2205.13147.
            truncate: cut what is too long for the model rather than refuse it.

        Returns:
            [num_texts, dimensions] float32, in the order of the texts, and the tokens it took.

        Raises:
            RequestError: a text or parameter that cannot be served (ContextLengthError: its
                length); nothing has been computed then.
            CapacityError: requests of other threads fill the queue.
            EngineError: the request failed, or the model is closed.
        """
        job = Embedding(
            self._runtime,
            texts,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
        self._run_job(job)
        return job.output()

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool = False,
        instruction: str | None = None,
    ) -> RerankOutput:
        """
        Documents by how well they answer a query.

        Args:
            query, documents: texts.
            top_n: give the best of them only.
            truncate: cut documents that are too long rather than refuse them.
            instruction: what "answers" means, for models that are told (Qwen3-Reranker).

        Returns:
            Indices of documents and their relevance from 0 to 1, best first.

        Raises: as for `embed`; RequestError also where the model does not rank.
        """
        job = Reranking(
            self._runtime,
            query,
            documents,
            top_n=top_n,
            truncate=truncate,
            instruction=instruction,
        )
        self._run_job(job)
        return job.output()

    def stats(self) -> EngineStats:
        """The engine's counters after its latest step."""
        return self._runtime.client.stats()

    def audit(self) -> None:
        """Have the engine check its books, which takes about a millisecond; for monitoring.

        Raises:
            EngineError: an account is wrong, which is a bug; or the engine is closed.
        """
        self._runtime.client.audit()

    def close(self) -> None:
        """End what is running with EngineError and free the model.  Idempotent."""
        self._finalizer()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_job(self, job: Embedding | Reranking) -> None:
        stream = self._runtime.client.embed(job.request)
        stream.max_unread_chunks = None  # all of it is wanted
        try:
            for chunk in stream:
                job.add(chunk)
        finally:
            stream.abort()

    def _answers(
        self, requests: list[Request], parser: ChatRequest | None = None
    ) -> list[RequestOutput]:
        parse = unparsed if parser is None else parser.parse
        outputs = []
        with Batch(self._runtime.client, requests) as batch:
            while (following := batch.next()) is not None:
                request, stream = following
                answer = Answer(request)
                for chunk in stream:
                    answer.add(parse(chunk))
                outputs.append(answer.output())
        return outputs

    def _chunks(self, request: Request, parser: ChatRequest | None = None) -> Iterator[OutputChunk]:
        parse = unparsed if parser is None else parser.parse
        # Submitted on the first next(): an iterator that is never used costs nothing.
        stream = self._runtime.client.submit(request)
        try:
            for chunk in stream:
                yield parse(chunk)
        finally:
            stream.abort()
