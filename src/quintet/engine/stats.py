"""Counters of an engine; what leaves the engine is always a copy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

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
        num_waiting, num_running: sequences now.
        num_prompt_tokens: prompt tokens of the sequences that started to run.
        num_cached_tokens: of those, the ones the prefix cache spared.
        num_generated_tokens: tokens sampled.
        num_preemptions: sequences sent back to the queue for want of blocks.
        num_steps: steps run, failed ones included.
        num_failed_steps: steps that raised.
        last_step_s: duration of the latest step, in seconds.
        num_blocks: KV blocks there are.
        num_used_blocks: of those, owned by a sequence.
        num_cached_blocks: of the others, those that still hold a prefix.
        last_step_at_s: when the latest step ended, on `time.monotonic`'s clock; 0 before
            the first.  Long ago while requests run: the engine hangs.
        num_restarts: engines that were lost and replaced by this one.
    """

    num_requests: int = 0
    num_finished: int = 0
    num_failed: int = 0
    num_aborted: int = 0
    num_waiting: int = 0
    num_running: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    num_failed_steps: int = 0
    last_step_s: float = 0.0
    num_blocks: int = 0
    num_used_blocks: int = 0
    num_cached_blocks: int = 0
    last_step_at_s: float = 0.0
    num_restarts: int = 0

    def count_end(self, finish_reason: FinishReason) -> None:
        """Count a request that has ended."""
        self.num_finished += 1
        self.num_failed += finish_reason == "error"
        self.num_aborted += finish_reason == "abort"

    def lost(self, num_unfinished: int) -> EngineStats:
        """What is left when the engine is lost: its totals, with the unfinished as failed."""
        num_finished = self.num_finished + num_unfinished
        return dataclasses.replace(
            self,
            num_requests=num_finished,
            num_finished=num_finished,
            num_failed=self.num_failed + num_unfinished,
            **dict.fromkeys(_STATE, 0),
        )

    def after(self, earlier: EngineStats) -> EngineStats:
        """These counters on top of what is left of an engine that this one replaced."""
        totals = {
            field.name: getattr(self, field.name) + getattr(earlier, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _STATE
        }
        return dataclasses.replace(self, **totals)

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
)
