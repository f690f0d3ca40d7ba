"""A session: texts that follow each other, each continued by the model."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from woolly.errors import GenerationFailed, InvalidRequest, ModelNotLoaded, translated
from woolly.mpsc import ChannelClosed, Outlet
from woolly.sampler import DefaultSampler, forcing

if TYPE_CHECKING:
    from quintet.async_llm import AsyncLLM
    from quintet.sampling.params import SamplingParams
    from woolly.sampler import Sampler

Emit = Callable[[str], Awaitable[None]]


@dataclass
class SessionStats:
    """
    A session's counters.

    Args:
        total_requests: generations that ended.
        prompt_tokens: of all prompts, with what went before; cached_tokens had been computed.
        tokens_generated: in all answers.
        generation_time_ms: of all.
        context_tokens: what the next prompt follows.
        finish_reason: of the last: "stop", "length" or "cancelled".
    """

    total_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens_generated: int = 0
    generation_time_ms: float = 0.0
    context_tokens: int = 0
    finish_reason: str | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated per second, prompts included in the time."""
        return (
            1000 * self.tokens_generated / self.generation_time_ms if self.total_requests else 0.0
        )


class Session:
    """
    Generates texts; each prompt follows what was said before, until `clear_context`.  Where that
    has outgrown the model's context, the oldest of it is dropped.

    One generation runs at a time.  Those of several sessions share the engine's steps.

    Args:
        llm: the model.
        sampler: picks tokens; None: the engine does.
        max_sequence_length: tokens of prompt and answer; None: what the model takes.
    """

    def __init__(
        self, llm: AsyncLLM, sampler: Sampler | None = None, max_sequence_length: int | None = None
    ) -> None:
        self.sampler = sampler
        self._max_sequence_length = max_sequence_length
        self._llm = llm
        self._context: list[int] = []
        self._stats = SessionStats()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None
        self._is_cancelled = False

    async def generate(self, prompt: str, max_tokens: int, temperature: float, top_p: float) -> str:
        """
        Continue a prompt.

        Args:
            prompt: a text; what in it spells a control token is that token.
            max_tokens: at most, from 1.
            temperature: 0 takes the most probable token.
            top_p: keep the fewest tokens that together have this probability.

        Returns:
            The text; what there is of it where `cancel_generation` ended it.

        Raises:
            InvalidRequest: a parameter out of range, or too long a prompt.
            ModelNotLoaded: the engine has unloaded the session's model.
            GenerationFailed: the engine could not finish, or a generation runs already.
        """
        pieces: list[str] = []

        async def emit(piece: str) -> None:
            pieces.append(piece)

        await self._run(prompt, max_tokens, temperature, top_p, emit)
        return "".join(pieces)

    async def generate_stream(
        self, prompt: str, max_tokens: int, temperature: float, top_p: float, tx: Any
    ) -> None:
        """
        Continue a prompt, sending the text piece by piece.

        Args:
            tx: where to: what `woolly.channel` gives, an asyncio.Queue, a queue.Queue, a function,
                or any object with `send` or `put`, coroutines or not.  A slow one is waited
                for.  At the end it is closed: a queue gets None, `close` is called where
                there is one.  A channel that is closed at its other end ends the generation.

        Raises: as `generate`; whatever `tx` raises.
        """
        outlet = Outlet(tx)
        try:
            await self._run(prompt, max_tokens, temperature, top_p, outlet.send)
        except ChannelClosed:
            self._stats.finish_reason = "cancelled"
        finally:
            await outlet.close()

    def cancel_generation(self) -> None:
        """End what is being generated, from any task or thread; nothing where nothing is."""
        running = self._running
        if running is not None:
            loop, task = running
            self._is_cancelled = True
            loop.call_soon_threadsafe(task.cancel)

    def stats(self) -> SessionStats:
        """The counters."""
        return self._stats

    def clear_context(self) -> None:
        """Forget what was said."""
        self._context = []
        self._stats.context_tokens = 0

    def is_of(self, llm: AsyncLLM) -> bool:
        """Whether it uses this model."""
        return self._llm is llm

    async def _run(
        self, prompt: str, max_tokens: int, temperature: float, top_p: float, emit: Emit
    ) -> None:
        if self._llm.is_closed:
            raise ModelNotLoaded("the model of this session was unloaded")
        if self._running is not None:
            raise GenerationFailed("this session is generating already")
        if not isinstance(prompt, str):
            raise InvalidRequest(f"prompt: expected a text, found {type(prompt).__name__}")
        with translated():
            params = self._params(max_tokens, temperature, top_p)
            task = asyncio.ensure_future(self._consume(prompt, params, emit))
            self._running, self._is_cancelled = (asyncio.get_running_loop(), task), False
            try:
                await task
            except asyncio.CancelledError:
                if not self._is_cancelled:
                    raise
            finally:
                self._running = None

    async def _consume(self, prompt: str, params: SamplingParams, emit: Emit) -> None:
        prompt_ids, max_tokens = self._following(prompt, params.max_tokens or 1)
        params = dataclasses.replace(params, max_tokens=max_tokens)
        answer_ids: list[int] = []
        stats, started_s, reason = self._stats, time.monotonic(), "cancelled"
        stream = self._llm.stream(prompt_ids, params)
        try:
            async for chunk in stream:
                answer_ids += chunk.token_ids
                if chunk.usage is not None:
                    stats.prompt_tokens += chunk.usage.num_prompt_tokens
                    stats.cached_tokens += chunk.usage.num_cached_tokens
                if chunk.finish_reason == "abort" and not self._is_cancelled:
                    raise GenerationFailed("the model was unloaded")
                if chunk.finish_reason is not None:
                    reason = {"abort": "cancelled"}.get(chunk.finish_reason, chunk.finish_reason)
                    if chunk.hides_last_token:
                        answer_ids = answer_ids[:-1]
                        stats.tokens_generated += 1
                if chunk.text:
                    await emit(chunk.text)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
            self._context = [*prompt_ids, *answer_ids]
            stats.total_requests += 1
            stats.tokens_generated += len(answer_ids)
            stats.generation_time_ms += 1000 * (time.monotonic() - started_s)
            stats.context_tokens = len(self._context)
            stats.finish_reason = reason

    def _following(self, prompt: str, max_tokens: int) -> tuple[list[int], int]:
        """
        The prompt after what was said before, of which the oldest goes where room is short; and
        how many tokens may follow.

        Raises:
            InvalidRequest: the prompt is too long by itself.
        """
        tokenizer = self._llm.tokenizer
        # A model that others of this process use as well may take more than was asked for here.
        max_len = self._llm.limits.max_model_len
        max_len = min(max_len, self._max_sequence_length or max_len)
        new_ids = tokenizer.encode(prompt, add_special=not self._context, parse_special=True)
        if len(new_ids) >= max_len:
            raise InvalidRequest(
                f"prompt: needs {len(new_ids)} tokens, the context holds {max_len}"
            )
        room = max_len - min(max_tokens, max_len // 2) - len(new_ids)
        keep = len(tokenizer.prefix_ids)
        num_over = max(0, len(self._context) - room)
        kept = [*self._context[:keep], *self._context[keep + num_over :]]
        ids = [*(kept if num_over else self._context), *new_ids][-(max_len - 1) :]
        return ids, min(max_tokens, max_len - len(ids))

    def _params(self, max_tokens: int, temperature: float, top_p: float) -> SamplingParams:
        from quintet.sampling.params import SamplingParams

        sampler = self.sampler
        if sampler is None or isinstance(sampler, DefaultSampler):
            seed = None if sampler is None else sampler.seed
            return SamplingParams(
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=1.0 if temperature == 0 else top_p,
                seed=seed,
            )
        checked = SamplingParams(max_tokens=max_tokens, temperature=temperature)
        return SamplingParams(
            max_tokens=checked.max_tokens,
            temperature=0.0,
            logits_processors=(forcing(sampler, temperature, top_p, 0),),
        )
