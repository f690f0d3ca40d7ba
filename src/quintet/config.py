"""Engine options: what they mean, in which unit, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from quintet.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class NgramSpeculation:
    """
    Prompt lookup: guess that what followed the latest tokens before follows them again.

    Costs nearly nothing, and pays where an answer repeats its prompt or itself: code
    edits, extraction, summaries with quotations.

    Args:
        max_draft_tokens: tokens guessed at most per sequence and step.
        min_ngram, max_ngram: how many of the latest tokens must, and may at most, be found
            again; the longest match wins, the latest of equals.

    Raises:
        RequestError: a value out of range.
    """

    max_draft_tokens: int = 10
    min_ngram: int = 2
    max_ngram: int = 8

    def __post_init__(self) -> None:
        _draft_tokens(self.max_draft_tokens)
        _at_least("min_ngram", self.min_ngram, 1)
        _at_least("max_ngram", self.max_ngram, self.min_ngram)


@dataclass(frozen=True, kw_only=True)
class DraftSpeculation:
    """
    A smaller model of the same vocabulary guesses ahead.

    Args:
        model: its name or path, as for `LLM`.
        max_draft_tokens: tokens guessed at most per sequence and step.

    Raises:
        RequestError: a value out of range.
    """

    model: str
    max_draft_tokens: int = 4

    def __post_init__(self) -> None:
        _draft_tokens(self.max_draft_tokens)


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
        num_kv_blocks: the same in blocks of 16 tokens; one of the two.
        max_queue: requests that may wait beyond `max_num_seqs`; more are refused.
        enable_prefix_cache: share the KV blocks of common prefixes.
        ageing_steps: steps of waiting that weigh as much as one level of priority.
        ngram_speculation, draft_speculation: guess tokens ahead, in one of these ways, and
            check several in one step; the answers are the same to the last bit, and it stops
            by itself where it does not pay.
        max_num_draft_tokens: guessed tokens of one step, over all sequences.
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
    num_kv_blocks: int | None = None
    max_queue: int = 1024
    enable_prefix_cache: bool = True
    ageing_steps: int = 1000
    ngram_speculation: NgramSpeculation | None = None
    draft_speculation: DraftSpeculation | None = None
    max_num_draft_tokens: int = 32
    seed: int | None = None

    def __post_init__(self) -> None:
        _at_least("max_num_seqs", self.max_num_seqs, 1)
        _at_least("max_num_batched_tokens", self.max_num_batched_tokens, 1)
        _at_least("max_num_mixed_prefill_tokens", self.max_num_mixed_prefill_tokens, 1)
        _at_least("max_model_len", self.max_model_len, 2)  # a token of prompt, one of answer
        _at_least("kv_cache_bytes", self.kv_cache_bytes, 1)
        _at_least("num_kv_blocks", self.num_kv_blocks, 1)
        _at_least("max_queue", self.max_queue, 0)
        _at_least("ageing_steps", self.ageing_steps, 1)
        _at_least("max_num_draft_tokens", self.max_num_draft_tokens, 1)
        if self.ngram_speculation is not None and self.draft_speculation is not None:
            raise RequestError(
                "expected this or ngram_speculation, found both", parameter="draft_speculation"
            )
        if self.kv_cache_bytes is not None and self.num_kv_blocks is not None:
            raise RequestError(
                "expected this or kv_cache_bytes, found both", parameter="num_kv_blocks"
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise RequestError(
                f"expected at least max_num_seqs ({self.max_num_seqs}), so that every running "
                f"sequence gets a token per step; found {self.max_num_batched_tokens}",
                parameter="max_num_batched_tokens",
            )

    @property
    def max_logits_rows(self) -> int:
        """Rows of one step whose logits are needed: one per sequence and guessed token."""
        speculates = self.ngram_speculation is not None or self.draft_speculation is not None
        return self.max_num_seqs + (self.max_num_draft_tokens if speculates else 0)


def _draft_tokens(count: int) -> None:
    if not 1 <= count <= 32:
        raise RequestError(f"expected 1 to 32, found {count}", parameter="max_draft_tokens")


def _at_least(parameter: str, value: int | None, minimum: int) -> None:
    if value is not None and value < minimum:
        raise RequestError(f"expected at least {minimum}, found {value}", parameter=parameter)


_UNITS = {"": 1}
_UNITS |= {unit: 1000**power for power, unit in enumerate("kmgt", start=1)}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("kmgt", start=1)}


def parse_bytes(value: int | str, parameter: str) -> int:
    """A number of bytes, or a text such as "4GiB", "512 MB" (decimal), "1.5g" (decimal) or "800".

    Raises:
        RequestError: anything else.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgt]i?)?b?", value.strip().lower())
    if found is None:
        raise RequestError(
            f'expected bytes, such as 4000000000, "4GB" or "4GiB", found {value!r:.80}',
            parameter=parameter,
        )
    return int(Fraction(found[1]) * _UNITS[found[2] or ""])
