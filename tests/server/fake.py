"""An engine that says what it is told, one token per permitted step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from quintet.engine.admission import EngineLimits
from quintet.engine.client import EngineState
from quintet.engine.output import OutputChunk, TokenLogprob, Usage
from quintet.engine.stats import EngineStats
from quintet.errors import EngineError
from quintet.sampling.params import SamplingParams

STOP_TOKEN = 0
PIECES = [b"", b"Hello", b" wor", b"ld", b"!", b" \xc3", b"\xa9"]  # the last two are one character


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

    def encode(self, text: str, **options: Any) -> list[int]:
        """A token per character."""
        return [1] * len(text)

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """The tokens' text."""
        return b"".join(PIECES[token_id] for token_id in ids).decode(errors="replace")

    @property
    def limits(self) -> EngineLimits:
        """Small."""
        return EngineLimits(vocab_size=len(PIECES), max_model_len=64, max_num_requests=64)

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
            for index, token in enumerate(tokens):
                await self._step()
                if index == self._error_after:
                    is_finished = True
                    raise EngineError("the step failed")
                held += PIECES[token]
                try:
                    text, held = held.decode(), b""
                except UnicodeDecodeError:
                    text = ""
                chunk = OutputChunk("r", text, (token,), self._logprobs(token, params))
                if index == len(tokens) - 1:
                    is_finished = True
                    reason = "stop" if token == STOP_TOKEN else "length"
                    chunk = replace(
                        chunk,
                        finish_reason=reason,
                        usage=Usage(7, 3, len(tokens)),
                        hides_last_token=reason == "stop",
                    )
                yield chunk
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

    def _logprobs(self, token: int, params: SamplingParams) -> tuple[TokenLogprob, ...] | None:
        if params.logprobs is None:
            return None
        top = ((token, -0.25), (1, float("-inf")))[: params.logprobs]
        return (TokenLogprob(token, -0.25, top),)
