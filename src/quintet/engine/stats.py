"""Counters of an engine; what leaves the engine is always a copy."""

from __future__ import annotations

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
        num_timed_out: of those, ended with "timeout".
        num_waiting, num_running: sequences now.
        num_prompt_tokens: prompt tokens of the sequences that started to run.
        num_cached_tokens: of those, the ones the prefix cache spared.
        num_generated_tokens: tokens sampled.
        num_draft_tokens: tokens guessed and checked.
        num_accepted_tokens: of those, the ones that came true.
        num_preemptions: sequences sent back to the queue for want of blocks.
        num_steps: steps run, failed ones included.
        num_failed_steps: steps that raised.
        last_step_s: duration of the latest step, in seconds.
        num_blocks: KV blocks there are.
        num_used_blocks: of those, owned by a sequence.
        num_cached_blocks: of the others, those that still hold a prefix.
    """

    num_requests: int = 0
    num_finished: int = 0
    num_failed: int = 0
    num_aborted: int = 0
    num_timed_out: int = 0
    num_waiting: int = 0
    num_running: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    num_failed_steps: int = 0
    last_step_s: float = 0.0
    num_blocks: int = 0
    num_used_blocks: int = 0
    num_cached_blocks: int = 0

    def count_end(self, finish_reason: FinishReason) -> None:
        """Count a request that has ended."""
        self.num_finished += 1
        self.num_failed += finish_reason == "error"
        self.num_aborted += finish_reason == "abort"
        self.num_timed_out += finish_reason == "timeout"

    @property
    def kv_usage(self) -> float:
        """The share of KV blocks in use, 0 to 1."""
        return self.num_used_blocks / self.num_blocks if self.num_blocks else 0.0

    @property
    def prefix_hit_rate(self) -> float:
        """The share of prompt tokens that the prefix cache spared, 0 to 1."""
        return self.num_cached_tokens / self.num_prompt_tokens if self.num_prompt_tokens else 0.0
