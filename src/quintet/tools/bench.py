"""Tokens per second of a model on this machine, measured through the engine that serves it."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quintet.llm import LLM
from quintet.sampling.params import SamplingParams
from quintet.tools.machine import Machine

_SEED = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    One kind of work at one batch size.

    Args:
        phase: "prefill", prompts of `num_tokens`; or "decode", answers of `num_tokens` to
            prompts of one token.
        batch_size: requests at the same time.
        num_tokens: per request.
        tokens_per_s: of all requests together, the median of the rounds.
        rounds: tokens per second of each round.
    """

    phase: str
    batch_size: int
    num_tokens: int
    tokens_per_s: float
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, and on what."""

    model: str
    machine: Machine
    measurements: tuple[Measurement, ...]

    def as_json(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return asdict(self)


def measure(
    llm: LLM,
    *,
    batch_sizes: Sequence[int],
    num_prefill_tokens: int,
    num_decode_tokens: int,
    num_rounds: int,
    on_round: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Measure prefill and decode at each batch size, a warm-up round before each.

    Prompts are random tokens, new in each round, so that no prefix is found in the cache.

    Args:
        on_round: called after each of `num_rounds_in_all` rounds.

    Raises:
        ContextLengthError: the model's context is too small for these numbers.
    """
    draw = random.Random(_SEED)  # noqa: S311 - repeatable, not secret
    measurements = []
    for batch_size in batch_sizes:
        for phase, num_prompt, num_new in (
            ("prefill", num_prefill_tokens, 1),
            ("decode", 1, num_decode_tokens),
        ):
            params = SamplingParams(max_tokens=num_new, temperature=0.0, ignore_eos=True)
            rates = []
            for _ in range(num_rounds + 1):
                prompts = [
                    [draw.randrange(llm.limits.vocab_size) for _ in range(num_prompt)]
                    for _ in range(batch_size)
                ]
                start_s = time.perf_counter()
                llm.generate(prompts, params)
                elapsed_s = time.perf_counter() - start_s
                rates.append(batch_size * max(num_prompt, num_new) / elapsed_s)
                on_round()
            measurements.append(
                Measurement(
                    phase,
                    batch_size,
                    max(num_prompt, num_new),
                    statistics.median(rates[1:]),
                    tuple(rates[1:]),
                )
            )
    return measurements


def num_rounds_in_all(batch_sizes: Sequence[int], num_rounds: int) -> int:
    """Rounds that `measure` runs, warm-ups included."""
    return len(batch_sizes) * 2 * (num_rounds + 1)
