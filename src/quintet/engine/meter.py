"""What the engine counts while it works; what leaves it is a copy, `EngineStats`."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from quintet.engine.latency import Rate, Stopwatch
from quintet.engine.output import FinishReason, OutputChunk
from quintet.engine.request import Request
from quintet.engine.sequence import Sequence
from quintet.engine.sizing import resident_bytes
from quintet.engine.stats import EngineStats

_RESIDENT_EVERY_S = 5.0


class Meter:
    """
    The engine's counters and clocks.

    Args:
        num_blocks: KV blocks there are.
        block_bytes: of each.

    Attributes:
        totals: what is counted one by one where it happens.
    """

    def __init__(self, *, num_blocks: int, block_bytes: int) -> None:
        now_s = time.monotonic()
        self.totals = EngineStats(
            num_blocks=num_blocks, block_bytes=block_bytes, started_at_s=now_s
        )
        self._queue_time = Stopwatch()
        self._prefill_time = Stopwatch()
        self._time_to_first_token = Stopwatch()
        self._inter_token_latency = Stopwatch()
        self._latency = Stopwatch()
        self._tokens, self._ends = Rate(at_s=now_s), Rate(at_s=now_s)
        self._num_counted_tokens = 0  # by _tokens
        self._resident_at_s = -_RESIDENT_EVERY_S
        self._now_s = now_s

    def first_run(self, sequence: Sequence, now_s: float) -> None:
        """A sequence gets its first step."""
        self.totals.num_prompt_tokens += sequence.num_prompt_tokens
        self.totals.num_cached_tokens += sequence.num_cached_tokens
        if sequence.index == 0:
            self._queue_time.record(now_s - sequence.request.arrival_s)

    def computed(self, started_s: float, num_sequences: int) -> None:
        """A step of so many sequences has been computed; its tokens come now."""
        self.totals.num_scheduled += num_sequences
        self._count_tokens()
        self._now_s = time.monotonic()
        self.totals.last_step_at_s = self._now_s
        self.totals.last_step_s = self._now_s - started_s

    def token(self, sequence: Sequence) -> None:
        """A sequence gets a token of the step just computed."""
        now_s = self._now_s
        self.totals.num_generated_tokens += 1
        if sequence.first_token_s is None:
            sequence.first_token_s = now_s
            if sequence.index == 0:
                self._time_to_first_token.record(now_s - sequence.request.arrival_s)
                if sequence.first_run_s is not None:
                    self._prefill_time.record(now_s - sequence.first_run_s)
        else:
            self._inter_token_latency.record(now_s - sequence.last_token_s)
        sequence.last_token_s = now_s

    def end(self, request: Request, finish_reason: FinishReason) -> None:
        """A request has ended."""
        now_s = time.monotonic()
        self.totals.count_end(finish_reason)
        self._latency.record(now_s - request.arrival_s)
        self._ends.count(1, now_s)

    def embedded(self, chunk: OutputChunk) -> None:
        """An embedding request has got this chunk."""
        if chunk.finish_reason is not None:
            now_s = time.monotonic()
            self.totals.count_end(chunk.finish_reason)
            self.totals.num_prompt_tokens += chunk.usage.num_prompt_tokens if chunk.usage else 0
            self._ends.count(1, now_s)

    def read(self, **state: Any) -> EngineStats:
        """The counters as they are now, with these fields of the engine's state."""
        totals = self.totals
        self._count_tokens()
        if self._now_s - self._resident_at_s >= _RESIDENT_EVERY_S:
            self._resident_at_s = self._now_s
            totals.resident_bytes = resident_bytes()
        at_s = totals.last_step_at_s or self._now_s
        return dataclasses.replace(
            totals,
            queue_time=self._queue_time.histogram(),
            prefill_time=self._prefill_time.histogram(),
            time_to_first_token=self._time_to_first_token.histogram(),
            inter_token_latency=self._inter_token_latency.histogram(),
            latency=self._latency.histogram(),
            token_level=self._tokens.level_at(at_s),
            end_level=self._ends.level_at(at_s),
            **state,
        )

    def _count_tokens(self) -> None:
        """Tell `_tokens` of the latest step's."""
        num_generated = self.totals.num_generated_tokens
        self._tokens.count(num_generated - self._num_counted_tokens, self._now_s)
        self._num_counted_tokens = num_generated
