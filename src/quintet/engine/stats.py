"""Counters of an engine; what leaves the engine is always a copy."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from quintet.engine.latency import NO_TIMES, Histogram, Rate
from quintet.engine.output import FinishReason


@dataclass(slots=True)
class EngineStats:
    """
    The engine after its latest step.  Totals only grow.

    Args:
        num_requests: requests accepted.
        num_finished: of those, ended for whichever reason.
        num_failed: of those, ended with "error".
        num_aborted: of those, ended with "abort".
        num_timed_out: of those, ended with "timeout".
        num_queue_timeouts: of those that failed, never run because the queue was too long.
        num_waiting, num_running: sequences now.
        num_prompt_tokens: prompt tokens of the sequences that started to run.
        num_cached_tokens: of those, the ones the prefix cache spared.
        num_generated_tokens: tokens sampled.
        num_draft_tokens: tokens guessed and checked.
        num_accepted_tokens: of those, the ones that came true.
        num_preemptions: sequences sent back to the queue for want of blocks.
        num_steps: steps run, failed ones included.
        num_scheduled: sequences of all steps together; by `num_steps`, how full they are.
        num_failed_steps: steps that raised.
        last_step_s: duration of the latest step, in seconds.
        num_blocks: KV blocks there are.
        num_used_blocks: of those, owned by a sequence.
        num_cached_blocks: of the others, those that still hold a prefix.
        last_step_at_s: when the latest step ended, on `time.monotonic`'s clock; 0 before
            the first.  Long ago while requests run: the engine hangs.
        num_restarts: engines that were lost and replaced by this one.
        num_audits: times the engine checked its books, by itself or because asked to.
        num_failed_audits: of those, the ones that found a fault.  Anything but 0 is a bug.
        queue_time: from a request's arrival to its first step.
        prefill_time: from its first step to the first token of its first answer.
        time_to_first_token: from its arrival to the first token of its first answer.
        inter_token_latency: between an answer's tokens; 0 between those of one step.
        latency: from a request's arrival to its end, whatever the reason.
        started_at_s: when the engine was made, on `time.monotonic`'s clock.
        block_bytes: of a KV block.
        resident_bytes: memory of the engine's process, some seconds old at most while it works.
        token_level, end_level: for `tokens_per_second` and `requests_per_second`.
    """

    num_requests: int = 0
    num_finished: int = 0
    num_failed: int = 0
    num_aborted: int = 0
    num_timed_out: int = 0
    num_queue_timeouts: int = 0
    num_waiting: int = 0
    num_running: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    num_scheduled: int = 0
    num_failed_steps: int = 0
    last_step_s: float = 0.0
    num_blocks: int = 0
    num_used_blocks: int = 0
    num_cached_blocks: int = 0
    last_step_at_s: float = 0.0
    num_restarts: int = 0
    num_audits: int = 0
    num_failed_audits: int = 0
    queue_time: Histogram = NO_TIMES
    prefill_time: Histogram = NO_TIMES
    time_to_first_token: Histogram = NO_TIMES
    inter_token_latency: Histogram = NO_TIMES
    latency: Histogram = NO_TIMES
    started_at_s: float = 0.0
    block_bytes: int = 0
    resident_bytes: int = 0
    token_level: float = 0.0
    end_level: float = 0.0

    def count_end(self, finish_reason: FinishReason) -> None:
        """Count a request that has ended."""
        self.num_finished += 1
        self.num_failed += finish_reason == "error"
        self.num_aborted += finish_reason == "abort"
        self.num_timed_out += finish_reason == "timeout"

    def lost(self, num_unfinished: int) -> EngineStats:
        """What is left when the engine is lost: its totals, with the unfinished as failed."""
        num_finished = self.num_finished + num_unfinished
        state: dict[str, Any] = dict.fromkeys(_STATE, 0)
        return dataclasses.replace(
            self,
            num_requests=num_finished,
            num_finished=num_finished,
            num_failed=self.num_failed + num_unfinished,
            **state,
        )

    def after(self, earlier: EngineStats) -> EngineStats:
        """These counters on top of what is left of an engine that this one replaced."""
        totals = {
            field.name: getattr(self, field.name) + getattr(earlier, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _STATE
        }
        return dataclasses.replace(self, **totals)

    def since(self, earlier: EngineStats) -> EngineStats:
        """What happened after these counters were read: totals less those, and the state now."""
        totals = {
            field.name: getattr(self, field.name) - getattr(earlier, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _STATE
        }
        return dataclasses.replace(self, **totals)

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated per second, over some ten seconds up to now."""
        return Rate(self.token_level, self.last_step_at_s).per_second(time.monotonic())

    @property
    def requests_per_second(self) -> float:
        """Requests ended per second, over some ten seconds up to now."""
        return Rate(self.end_level, self.last_step_at_s).per_second(time.monotonic())

    @property
    def uptime_s(self) -> float:
        """Seconds since the engine was made."""
        return time.monotonic() - self.started_at_s if self.started_at_s else 0.0

    @property
    def acceptance_rate(self) -> float:
        """The share of guessed tokens that came true, 0 to 1."""
        return self.num_accepted_tokens / self.num_draft_tokens if self.num_draft_tokens else 0.0

    @property
    def kv_usage(self) -> float:
        """The share of KV blocks in use, 0 to 1."""
        return self.num_used_blocks / self.num_blocks if self.num_blocks else 0.0

    @property
    def prefix_hit_rate(self) -> float:
        """The share of prompt tokens that the prefix cache spared, 0 to 1."""
        return self.num_cached_tokens / self.num_prompt_tokens if self.num_prompt_tokens else 0.0


# Fields that say how the engine is now; the others are totals.
_STATE = (
    "num_waiting",
    "num_running",
    "last_step_s",
    "num_blocks",
    "num_used_blocks",
    "num_cached_blocks",
    "last_step_at_s",
    "started_at_s",
    "block_bytes",
    "resident_bytes",
    "token_level",
    "end_level",
)
