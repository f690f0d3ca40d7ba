"""Adds guesses to a step and learns from what became of them.

The guesses change no answer: each of a sequence's rows is sampled as it would be
alone, with the sequence's own random stream, and the next row counts only if the
guess before it is the token that was sampled (see `Engine`).  That is stricter than
rejection sampling, which keeps the distribution only: here it is the same tokens.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence as Collection
from typing import Protocol

from quintet.config import EngineConfig
from quintet.engine.scheduler import Scheduled, Scheduler
from quintet.engine.sequence import Sequence
from quintet.engine.speculation.ngram import NgramDrafter
from quintet.engine.speculation.payoff import Acceptance, StepCost

logger = logging.getLogger(__name__)

# Tokens between two trials of a sequence whose guesses do not pay.
_MIN_PAUSE, _MAX_PAUSE = 4, 128


class Drafter(Protocol):
    """Guesses tokens."""

    @property
    def max_draft_tokens(self) -> int:
        """Guesses per sequence and step."""

    @property
    def is_free(self) -> bool:
        """Whether a guess costs so little that it may be made only to see if it is right."""

    def propose(self, wanted: Collection[tuple[Sequence, int]]) -> list[list[int]]:
        """For each sequence up to so many tokens that may come next; perhaps none."""

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended; a no-op for one never seen."""

    def close(self) -> None:
        """Free what it holds."""


class Speculator:
    """
    Decides how many guesses each sequence gets in each step.

    Args:
        config: how many guesses at most, per sequence and per step.
        scheduler: has the blocks they are computed in.
        drafter: makes them; see `make_drafter`.
        cost: what rows cost; learned from the steps.
    """

    def __init__(
        self,
        config: EngineConfig,
        scheduler: Scheduler,
        drafter: Drafter | None = None,
        cost: StepCost | None = None,
    ) -> None:
        self._config = config
        self._scheduler = scheduler
        self._drafter = make_drafter(config) if drafter is None else drafter
        self._cost = StepCost() if cost is None else cost
        self._trials: dict[Sequence, _Trial] = {}

    def extend(self, batch: list[Scheduled]) -> list[Scheduled]:
        """The step with guesses added; never fails, at worst it adds none."""
        if self._drafter is None:
            return batch
        try:
            return self._extend(batch, self._drafter)
        except Exception:
            # A broken drafter must cost speed only.
            logger.exception("speculation has failed and is off from now on")
            self.close()
            for scheduled in batch:
                self._scheduler.trim(scheduled.sequence)
            return batch

    def record(self, batch: Collection[Scheduled], seconds: float) -> None:
        """Learn from a step: what it cost, the making of guesses apart, and what came true."""
        if self._drafter is None:
            return
        if all(scheduled.num_tokens == 1 for scheduled in batch):  # no prompt among them
            num_rows = len(batch) + sum(len(scheduled.draft_ids) for scheduled in batch)
            self._cost.record(num_rows, seconds)
        for scheduled in batch:
            trial = self._trials.get(scheduled.sequence)
            if trial is not None:
                trial.record(scheduled.sequence.token_ids)

    def forget(self, sequence: Sequence) -> None:
        """Drop what is known of a sequence that has ended."""
        self._trials.pop(sequence, None)
        if self._drafter is not None:
            self._drafter.forget(sequence)

    def close(self) -> None:
        """Stop guessing for good."""
        drafter, self._drafter = self._drafter, None
        self._trials.clear()
        if drafter is not None:
            drafter.close()

    def _extend(self, batch: list[Scheduled], drafter: Drafter) -> list[Scheduled]:
        wanted = self._wanted(batch, drafter)
        if not wanted:
            return batch
        started_s = time.monotonic()
        guesses = drafter.propose([(sequence, max(1, k)) for sequence, k in wanted])
        num_guesses = sum(map(len, guesses))
        if num_guesses:
            self._cost.record_drafting(num_guesses, time.monotonic() - started_s)
        drafts: dict[Sequence, tuple[int, ...]] = {}
        for (sequence, k), guess in zip(wanted, guesses, strict=True):
            self._trials[sequence].start(len(sequence.token_ids), guess)
            if guess and k:
                num_drafts = self._scheduler.reserve_drafts(sequence, min(k, len(guess)))
                drafts[sequence] = tuple(guess[:num_drafts])
        return [
            dataclasses.replace(scheduled, draft_ids=drafts[scheduled.sequence])
            if drafts.get(scheduled.sequence)
            else scheduled
            for scheduled in batch
        ]

    def _wanted(self, batch: Collection[Scheduled], drafter: Drafter) -> list[tuple[Sequence, int]]:
        """Who is to get guesses and how many; 0 is for one that is only held against the truth."""
        num_rows = sum(scheduled.num_tokens for scheduled in batch)
        sampling = [scheduled.sequence for scheduled in batch if scheduled.samples]
        room = min(
            self._config.max_num_draft_tokens,
            self._config.max_num_batched_tokens - num_rows,
            self._scheduler.num_spare_logits_rows(batch),
        )
        bound = self._cost.bound(len(sampling), num_rows)
        max_draft_tokens = drafter.max_draft_tokens
        wanted = []
        for sequence in sampling:
            # The last token of an answer, or of a context before it slides, has no row after it.
            useful = sequence.num_tokens_left - 1
            if useful < 1:
                continue
            trial = self._trials.setdefault(sequence, _Trial())
            k = trial.acceptance.worthwhile(bound, min(max_draft_tokens, useful, room))
            if k == 0 and not drafter.is_free:
                k = min(trial.trial_after_a_pause(), room)
                if k == 0:
                    continue
            wanted.append((sequence, k))
            room -= k
        return wanted


def make_drafter(config: EngineConfig) -> Drafter | None:
    """The drafter that needs nothing but its options.

    Raises:
        ValueError: a draft model has to be loaded first (see `engine.loading`).
    """
    if config.draft_speculation is not None:
        raise ValueError("expected the drafter of a loaded draft model, found none")
    ngram = config.ngram_speculation
    return None if ngram is None else NgramDrafter(ngram)


class _Trial:
    """One sequence's guesses."""

    def __init__(self) -> None:
        self.acceptance = Acceptance()
        self._guess: list[int] = []
        self._place = 0
        self._pause = _MIN_PAUSE
        self._num_waited = 0

    def start(self, place: int, guess: list[int]) -> None:
        """Note the guess for the tokens from `place` on."""
        self._place, self._guess = place, guess

    def record(self, token_ids: list[int]) -> None:
        """Compare the latest guess with the tokens that came."""
        guess, self._guess = self._guess, []
        num_compared = min(len(guess), len(token_ids) - self._place)
        if num_compared == 0:
            return
        num_right = 0
        while num_right < num_compared and guess[num_right] == token_ids[self._place + num_right]:
            num_right += 1
        self.acceptance.record(num_right, num_compared)
        if num_right:
            self._pause = _MIN_PAUSE

    def trial_after_a_pause(self) -> int:
        """1 now and then, else 0: guesses that cost are tried ever more rarely while wrong."""
        self._num_waited += 1
        if self._num_waited < self._pause:
            return 0
        self._num_waited = 0
        self._pause = min(2 * self._pause, _MAX_PAUSE)
        return 1
