"""An engine that says what it is told, one token per permitted step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quintet.engine.admission import EngineLimits
from quintet.engine.client import EngineState
from quintet.engine.output import OutputChunk, PromptLogprobs, TokenLogprob, Usage
from quintet.engine.stats import EngineStats
from quintet.errors import EngineError
from quintet.sampling.params import SamplingParams

STOP_TOKEN = 0
PIECES = [b"", b"Hello", b" wor", b"ld", b"!", b" \xc3", b"\xa9"]  # the last two are one character


@dataclass(frozen=True)
class FakeEmbeddings:
    """Vectors and their cost."""

    embeddings: NDArray[np.float32]
    usage: Usage


class FakeEngine:
    """Answers every request with the same tokens.

    Args:
        tokens: what it says before its stop token.
        error: raised instead of the first chunk.
        error_after: number of tokens after which the request fails.
        is_gated: tokens come only as `permit` allows them.
    """

    def __init__(
        self,
        tokens: Sequence[int] = (1, 2, 3, 4),
        *,
        error: Exception | None = None,
        error_after: int | None = None,
        is_gated: bool = False,
    ) -> None:
        self._tokens = tokens
        self._error = error
        self._error_after = error_after
        self._permits = asyncio.Semaphore(0 if is_gated else 10**9)
        self._close_event = asyncio.Event()
        self.state: EngineState = "ready"
        self.prompts: list[Any] = []
        self.params: list[SamplingParams] = []
        self.options: list[dict[str, Any]] = []
        self.num_steps = 0
        self.num_aborted = 0
        self.num_running = 0

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed."""
        return self.state == "closed"

    def permit(self, num_steps: int = 1) -> None:
        """Let a gated engine run this many steps."""
        for _ in range(num_steps):
            self._permits.release()

    def stream(
        self, prompt: str | list[int], params: SamplingParams, **options: Any
    ) -> AsyncGenerator[OutputChunk, None]:
        """Continue a prompt."""
        self.options.append(options)
        return self._run(prompt, params)

    def stream_chat(
        self,
        messages: list[dict[str, Any]],
        params: SamplingParams,
        *,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        enable_thinking: bool | None = None,
        **options: Any,
    ) -> AsyncGenerator[OutputChunk, None]:
        """Answer a conversation."""
        self.options.append(options)
        return self._run((messages, tools, enable_thinking), params)

    async def count_tokens(self, messages: list[dict[str, Any]], **options: Any) -> int:
        """As `Usage` says below."""
        return 7

    @property
    def tokenizer(self) -> FakeEngine:
        """Its own tokenizer."""
        return self

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for."""
        return PIECES[token_id]

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """The longest piece that fits, again and again; text of other characters has no tokens."""
        ids = [STOP_TOKEN] if add_special else []
        data = text.encode()
        while data:
            fits = [i for i in range(1, len(PIECES)) if data.startswith(PIECES[i])]
            best = max(fits, key=lambda i: len(PIECES[i]), default=None)
            ids += [] if best is None else [best]
            data = data[1 if best is None else len(PIECES[best]) :]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of token ids."""
        return b"".join(PIECES[i] for i in ids).decode(errors="replace")

    @property
    def limits(self) -> EngineLimits:
        """Small."""
        return EngineLimits(vocab_size=len(PIECES), max_model_len=64, max_num_requests=64)

    async def embed(
        self, inputs: Sequence[str | list[int]], *, dimensions: int | None = None, **options: Any
    ) -> FakeEmbeddings:
        """Vectors that tell the inputs apart."""
        self.prompts.append(list(inputs))
        if self._error is not None:
            raise self._error
        width = dimensions or 4
        rows = [[len(item), index, 0.5, -1e-7][:width] for index, item in enumerate(inputs)]
        return FakeEmbeddings(np.array(rows, dtype=np.float32), Usage(5, 0, 0))

    def stats(self) -> EngineStats:
        """Counters."""
        return EngineStats(num_steps=self.num_steps, num_running=self.num_running)

    async def close(self) -> None:
        """End every request with an error."""
        self.state = "closed"
        self._close_event.set()

    async def _run(self, prompt: Any, params: SamplingParams) -> AsyncGenerator[OutputChunk, None]:
        self.prompts.append(prompt)
        self.params.append(params)
        if self._error is not None:
            raise self._error
        tokens = [*self._tokens, STOP_TOKEN]
        if params.max_tokens is not None:
            tokens = tokens[: params.max_tokens]
        is_finished = False
        self.num_running += 1
        try:
            held = b""
            for place, token in enumerate(tokens):
                await self._step()
                if place == self._error_after:
                    is_finished = True
                    raise EngineError("the step failed")
                held += PIECES[token]
                try:
                    text, held = held.decode(), b""
                except UnicodeDecodeError:
                    text = ""
                chunk = OutputChunk("r", text, (token,), self._logprobs(token, params))
                if place == len(tokens) - 1:
                    is_finished = True
                    reason = "stop" if token == STOP_TOKEN else "length"
                    chunk = replace(
                        chunk,
                        finish_reason=reason,
                        usage=Usage(7, 3, len(tokens)),
                        hides_last_token=reason == "stop",
                    )
                for index in range(params.n):
                    others_go_on = chunk.finish_reason is not None and index < params.n - 1
                    own = replace(chunk, index=index, others_go_on=others_go_on)
                    if place == index == 0 and params.prompt_logprobs is not None:
                        own = replace(own, prompt_logprobs=self._prompt_logprobs(prompt, params))
                    yield own
        finally:
            self.num_running -= 1
            self.num_aborted += not is_finished

    async def _step(self) -> None:
        permit = asyncio.ensure_future(self._permits.acquire())
        closed = asyncio.ensure_future(self._close_event.wait())
        try:
            await asyncio.wait({permit, closed}, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                raise EngineError("the engine was closed")
            self.num_steps += 1
        finally:
            permit.cancel()
            closed.cancel()

    def _prompt_logprobs(self, prompt: list[int], params: SamplingParams) -> PromptLogprobs:
        scored = [TokenLogprob(i, -0.5, ((i, -0.5),)[: params.prompt_logprobs]) for i in prompt[1:]]
        return (None, *scored)

    def _logprobs(self, token: int, params: SamplingParams) -> tuple[TokenLogprob, ...] | None:
        if params.logprobs is None:
            return None
        top = ((token, -0.25), (1, float("-inf")))[: params.logprobs]
        return (TokenLogprob(token, -0.25, top),)
