"""Beam search over one prompt: which continuations to score next, which answers are best.

It asks nothing of anybody: whoever drives it scores `prefixes` and hands the scores to
`advance`.  A finished answer's score is its log probability divided by its number of
tokens, the ending one included, to the power of `length_penalty`.

Sources: transformers, `generation/utils.py`, `_beam_search` (order of finishing and when to
stop); vLLM, `beam_search.py` (the score).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quintet.errors import RequestError
from quintet.sampling.checks import checked_float, checked_int
from quintet.sampling.params import MAX_LOGPROBS, MAX_TOKENS

EarlyStopping: TypeAlias = Literal[True, False, "never"]
MAX_LENGTH_PENALTY = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearchParams:
    """
    How to search.

    Args:
        beam_width: answers to keep at a time, and to return.
        max_tokens: tokens of an answer at most.
        length_penalty: -10 to 10; above 0 favours long answers, below 0 short ones.
        early_stopping: True ends as soon as `beam_width` answers are finished.  False ends when
            the best unfinished one, scored at its present length, is no better than the worst
            finished one; "never" scores it at the length that would suit it best.
        ignore_eos: answers end at max_tokens only.

    Raises:
        RequestError: a value out of range; carries the parameter.
    """

    beam_width: int = 4
    max_tokens: int = 256
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        checked_int("beam_width", self.beam_width, 1, MAX_LOGPROBS)
        checked_int("max_tokens", self.max_tokens, 1, MAX_TOKENS)
        checked_float(
            "length_penalty", self.length_penalty, -MAX_LENGTH_PENALTY, MAX_LENGTH_PENALTY
        )
        for name, choices in (
            ("early_stopping", (True, False, "never")),
            ("ignore_eos", (True, False)),
        ):
            value = getattr(self, name)
            if not isinstance(value, (bool, str)) or value not in choices:
                raise RequestError(f"expected one of {choices}, found {value!r}", parameter=name)


@dataclass(frozen=True, slots=True)
class Beam:
    """
    An answer.

    Args:
        token_ids: of the answer, an end-of-sequence token included.
        logprob: of the answer as a whole.
        score: what answers are ranked by.
        finish_reason: "stop" where it ends with an end-of-sequence token, else "length".
    """

    token_ids: tuple[int, ...]
    logprob: float
    score: float
    finish_reason: Literal["stop", "length"]


class BeamSearch:
    """
    The state of one search.

    Args:
        prompt_token_ids: what all answers continue.
        params: how to search.
        eos_ids: tokens that end an answer unless `params.ignore_eos`.
        max_model_len: tokens of prompt and answer together; ends answers like `max_tokens`.

    Raises:
        RequestError: `beam_width` is too large beside so many end-of-sequence tokens.
    """

    def __init__(
        self,
        prompt_token_ids: Sequence[int],
        params: BeamSearchParams,
        *,
        eos_ids: frozenset[int],
        max_model_len: int,
    ) -> None:
        self.prompt_token_ids = tuple(prompt_token_ids)
        self.is_finished = False
        self._params = params
        self._eos_ids = frozenset() if params.ignore_eos else eos_ids
        self._max_tokens = min(params.max_tokens, max_model_len - len(self.prompt_token_ids))
        self._running: list[tuple[tuple[int, ...], float]] = [((), 0.0)]  # best first
        self._finished: list[Beam] = []  # best first
        # Of a prefix's continuations no more than these can matter: beam_width that go on, and
        # among the likelier ones those that end.
        self.num_continuations = params.beam_width + len(self._eos_ids)
        if self.num_continuations > MAX_LOGPROBS:
            raise RequestError(
                f"expected at most {MAX_LOGPROBS - len(self._eos_ids)} with a model of "
                f"{len(self._eos_ids)} end-of-sequence tokens, found {params.beam_width}",
                parameter="beam_width",
            )

    @property
    def prefixes(self) -> list[tuple[int, ...]]:
        """Prompt and answer so far of each unfinished answer."""
        return [self.prompt_token_ids + token_ids for token_ids, _ in self._running]

    @property
    def beams(self) -> tuple[Beam, ...]:
        """The finished answers, best first; at most `beam_width`."""
        return tuple(self._finished)

    def advance(self, continuations: Sequence[Sequence[tuple[int, float]]]) -> None:
        """
        Take one step.

        Args:
            continuations: for each of `prefixes`, its `num_continuations` most probable next
                tokens and their log probabilities.
        """
        candidates = [
            ((*token_ids, token_id), total + logprob)
            for (token_ids, total), following in zip(self._running, continuations, strict=True)
            for token_id, logprob in following
        ]
        candidates.sort(key=lambda candidate: -candidate[1])
        width = self._params.beam_width
        num_tokens = len(self._running[0][0]) + 1
        is_last = num_tokens >= self._max_tokens

        # An answer that ends below the best `beam_width` candidates was not worth keeping.
        for token_ids, logprob in candidates[:width]:
            if token_ids[-1] in self._eos_ids:
                self._finish(token_ids, logprob, "stop")
            elif is_last:
                self._finish(token_ids, logprob, "length")
        self._finished.sort(key=lambda beam: -beam.score)
        del self._finished[width:]

        self._running = [
            candidate for candidate in candidates if candidate[0][-1] not in self._eos_ids
        ][:width]
        self.is_finished = is_last or not self._running or not self._may_improve(num_tokens)

    def _finish(
        self, token_ids: tuple[int, ...], logprob: float, reason: Literal["stop", "length"]
    ) -> None:
        self._finished.append(
            Beam(token_ids, logprob, self._score(logprob, len(token_ids)), reason)
        )

    def _may_improve(self, num_tokens: int) -> bool:
        if len(self._finished) < self._params.beam_width:
            return True
        if self._params.early_stopping is True:
            return False
        if self._params.early_stopping == "never" and self._params.length_penalty > 0:
            num_tokens = self._max_tokens
        return self._score(self._running[0][1], num_tokens) > self._finished[-1].score

    def _score(self, logprob: float, num_tokens: int) -> float:
        return logprob / float(num_tokens) ** self._params.length_penalty
