"""Engine options: what they mean, in which unit, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

from quintet.errors import RequestError


@dataclass(frozen=True, kw_only=True)  # no slots: the defaults are read from the class
class EngineConfig:
    """
    How the engine batches and how much memory it may take.

    Args:
        max_num_seqs: sequences that may run in one step.
        max_num_batched_tokens: new tokens of one step, prefill and decode together.
        max_num_mixed_prefill_tokens: prefill tokens of a step in which other sequences
            decode.  Bounds the pause that a long prompt makes in everybody's stream;
            the matrix kernels are near their peak from some 16 rows up, so small
            chunks cost the prompt little.
        max_model_len: tokens of prompt and answer together.  None: what the model was
            trained for, or less where the KV cache is smaller (said in the log).
        kv_cache_bytes: size of the KV cache.  None: a quarter of the memory now
            available, or what `max_num_seqs` full contexts can use where that is less.
        max_queue: requests that may wait beyond `max_num_seqs`; more are refused.
        enable_prefix_cache: share the KV blocks of common prefixes.
        ageing_steps: steps of waiting that weigh as much as one level of priority.
        seed: makes requests without a seed of their own repeatable, given the same
            order of submission.  None: fresh randomness.

    Raises:
        RequestError: a value out of range; carries the parameter.
    """

    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    max_num_mixed_prefill_tokens: int = 64
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    max_queue: int = 1024
    enable_prefix_cache: bool = True
    ageing_steps: int = 1000
    seed: int | None = None

    def __post_init__(self) -> None:
        _at_least("max_num_seqs", self.max_num_seqs, 1)
        _at_least("max_num_batched_tokens", self.max_num_batched_tokens, 1)
        _at_least("max_num_mixed_prefill_tokens", self.max_num_mixed_prefill_tokens, 1)
        _at_least("max_model_len", self.max_model_len, 2)  # a token of prompt, one of answer
        _at_least("kv_cache_bytes", self.kv_cache_bytes, 1)
        _at_least("max_queue", self.max_queue, 0)
        _at_least("ageing_steps", self.ageing_steps, 1)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise RequestError(
                f"expected at least max_num_seqs ({self.max_num_seqs}), so that every running "
                f"sequence gets a token per step; found {self.max_num_batched_tokens}",
                parameter="max_num_batched_tokens",
            )


def _at_least(parameter: str, value: int | None, minimum: int) -> None:
    if value is not None and value < minimum:
        raise RequestError(f"expected at least {minimum}, found {value}", parameter=parameter)
