"""Decides, step by step, which sequences compute how many tokens.

Sequences are served in the order of their rank, which is fixed on arrival:
priority counts as a head start of `ageing_steps` steps per level, so a lower
priority waits longer but not for ever.

Where blocks run out the last of the running sequences is preempted.  One that has
been preempted MAX_PREEMPTIONS times runs before all others from then on, whatever
its rank, and only one such sequence runs at a time.  So it is never preempted again:
the others give way, and alone it fits.  That is progress too: in every step the first
of the running sequences computes something, and keeps it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from quintet.backends.base import BLOCK_SIZE
from quintet.config import EngineConfig
from quintet.engine.block_pool import BlockPool
from quintet.engine.request import Request
from quintet.engine.sequence import Sequence, Status, num_blocks

MAX_PREEMPTIONS = 4
"""Times a sequence may be preempted; then it is protected."""
_NO_PLACES = range(0)


@dataclass(slots=True)
class Scheduled:
    """
    A sequence's part in a step.

    Args:
        sequence: whose it is.
        num_tokens: its next uncomputed tokens that are computed now.
        samples: whether nothing is left uncomputed then, so that a new token follows.
        draft_ids: guesses of the tokens after those, computed with them to be checked.
    """

    sequence: Sequence
    num_tokens: int
    samples: bool
    draft_ids: tuple[int, ...] = ()

    @property
    def scored(self) -> range:
        """Places of the tokens whose logits score the token after them, for prompt_logprobs."""
        sequence = self.sequence
        if not (sequence.wants_scores and sequence.num_unscored_tokens):
            return _NO_PLACES
        start = sequence.num_computed_tokens
        end = min(start + self.num_tokens, sequence.num_prompt_tokens - 1)
        return range(max(start, len(sequence.prompt_logprobs)), end)


class Scheduler:
    """
    Owns the waiting and the running sequences and the block pool.

    Args:
        config: the token budget, the number of sequences, the worth of a priority.
        pool: holds at least one sequence of the greatest allowed length.
        max_logits_rows: of a step; at least one for each sequence that may run.
    """

    def __init__(self, config: EngineConfig, pool: BlockPool, max_logits_rows: int) -> None:
        self._config = config
        self._max_logits_rows = max_logits_rows
        self.pool = pool
        self._waiting: list[Sequence] = []  # by rank
        self._running: list[Sequence] = []  # a protected one first, then by rank
        self._failures: list[tuple[Sequence, Exception]] = []
        self._num_arrived = 0
        self.num_steps = 0
        self.num_preemptions = 0

    @property
    def num_waiting(self) -> int:
        """Sequences that have no blocks."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences that have blocks."""
        return len(self._running)

    def __iter__(self) -> Iterator[Sequence]:
        """All unfinished sequences, the running ones first."""
        return chain(self._running, self._waiting)

    def rank(self, request: Request) -> tuple[int, int]:
        """The place in the order of service of a request that arrives now."""
        self._num_arrived += 1
        head_start = self._config.ageing_steps * int(request.priority)
        return self.num_steps - head_start, self._num_arrived

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        bisect.insort(self._waiting, sequence, key=_rank)

    def schedule(self) -> list[Scheduled]:
        """The next step: running sequences first, then waiting ones while there is room.

        Never empty while a sequence is unfinished, unless `take_failures` has some.
        """
        self.num_steps += 1
        batch: list[Scheduled] = []
        num_decodes = [sequence.num_uncomputed_tokens for sequence in self._running].count(1)
        budget = self._config.max_num_batched_tokens - num_decodes
        if num_decodes:
            budget = min(budget, self._config.max_num_mixed_prefill_tokens)
        # Every sequence has one row of logits for itself; these are for scoring prompts.
        spare_rows = self._max_logits_rows - len(self._running)

        # In order, so that who is preempted has not been scheduled yet.
        for sequence in tuple(self._running):
            if sequence.status is not Status.RUNNING or not self._reserve(sequence):
                continue
            if sequence.num_uncomputed_tokens == 1:
                batch.append(Scheduled(sequence, 1, samples=True))
            elif budget > 0:
                scheduled = _chunk(sequence, budget, spare_rows)
                batch.append(scheduled)
                budget -= scheduled.num_tokens
                spare_rows -= max(0, len(scheduled.scored) + scheduled.samples - 1)

        while (
            budget > 0
            and spare_rows > 0
            and len(self._running) < self._config.max_num_seqs
            and (newcomer := self._next_waiting()) is not None
            and self._admit(newcomer)
        ):
            scheduled = _chunk(newcomer, budget, spare_rows - 1)
            batch.append(scheduled)
            budget -= scheduled.num_tokens
            spare_rows -= max(1, len(scheduled.scored) + scheduled.samples)
        return batch

    def take_failures(self) -> list[tuple[Sequence, Exception]]:
        """Sequences that `schedule` could not give blocks to, though there are; to be ended."""
        failures, self._failures = self._failures, []
        return failures

    def num_spare_logits_rows(self, batch: Iterable[Scheduled]) -> int:
        """Rows of logits that a step leaves for guesses."""
        num_taken = sum(len(scheduled.scored) + scheduled.samples for scheduled in batch)
        return self._max_logits_rows - num_taken

    def reserve_drafts(self, sequence: Sequence, num_drafts: int) -> int:
        """Make room behind a sequence's tokens for guesses.

        Takes nothing that a running sequence may need to grow: nobody is preempted for a guess.

        Returns:
            How many of the guesses there is room for.
        """
        num_spare = self.pool.num_available - len(self._running)
        num_wanted = num_blocks(len(sequence.token_ids) + num_drafts) - len(sequence.block_table)
        if (num_new := min(num_wanted, num_spare)) > 0:
            sequence.block_table.extend(self.pool.allocate(num_new))
        num_slots = len(sequence.block_table) * BLOCK_SIZE
        return min(num_drafts, num_slots - len(sequence.token_ids))

    def commit(self, batch: Iterable[Scheduled]) -> None:
        """Count a step's tokens as computed, guesses apart; publish the blocks they filled."""
        for scheduled in batch:
            self.advance(scheduled.sequence, scheduled.num_tokens)

    def advance(self, sequence: Sequence, num_tokens: int) -> None:
        """Count a sequence's next tokens as computed and publish the blocks they filled."""
        first_full = sequence.num_computed_tokens // BLOCK_SIZE
        sequence.num_computed_tokens += num_tokens
        num_full = sequence.num_computed_tokens // BLOCK_SIZE
        if num_full == first_full:
            return
        self._name_blocks(sequence, num_full)
        for index in range(first_full, num_full):
            self.pool.publish(
                sequence.block_table[index],
                sequence.block_names[index],
                sequence.full_block(index),
            )

    def trim(self, sequence: Sequence) -> None:
        """Take back the blocks that only wrong guesses were in."""
        num_needed = num_blocks(len(sequence.token_ids))
        if num_needed < len(sequence.block_table):
            self.pool.release(sequence.block_table[num_needed:])
            del sequence.block_table[num_needed:]

    def requeue(self, sequence: Sequence) -> None:
        """Send a running sequence back to wait in its rank, to be computed anew."""
        self._running.remove(sequence)
        self._free(sequence)
        sequence.status = Status.WAITING
        self.add(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Let go of a sequence, wherever it is; a no-op the second time."""
        if sequence.status is Status.RUNNING:
            self._running.remove(sequence)
        elif sequence.status is Status.WAITING:
            self._waiting.remove(sequence)
        self._free(sequence)
        sequence.status = Status.FINISHED

    def audit(self) -> None:
        """Check blocks against sequences.

        Raises:
            AssertionError: says which account is wrong.
        """
        self.pool.audit(sequence.block_table for sequence in self)
        for sequence in self._waiting:
            if (
                sequence.status is not Status.WAITING
                or sequence.block_table
                or sequence.num_computed_tokens
            ):
                raise AssertionError(f"{sequence.request_id}: waits with something computed")
        if any(map(_is_protected, self._running[1:])):
            raise AssertionError("more than one protected sequence runs")
        for sequence in self._running:
            num_slots = len(sequence.block_table) * BLOCK_SIZE
            if sequence.status is not Status.RUNNING or sequence.num_computed_tokens > num_slots:
                raise AssertionError(f"{sequence.request_id}: runs with too few blocks")
            if sequence.num_computed_tokens >= len(sequence.token_ids):
                raise AssertionError(f"{sequence.request_id}: guesses count as computed")
            if len(sequence.block_table) > num_blocks(len(sequence.token_ids)):
                raise AssertionError(f"{sequence.request_id}: keeps blocks of wrong guesses")

    def _next_waiting(self) -> Sequence | None:
        """The one to be admitted next, strictly: were smaller ones to pass, it might starve.

        While a protected sequence runs, others of its kind are passed over; they wait for it.
        """
        may_be_protected = not (self._running and _is_protected(self._running[0]))
        for sequence in self._waiting:
            if may_be_protected or not _is_protected(sequence):
                return sequence
        return None

    def _admit(self, sequence: Sequence) -> bool:
        """Give a waiting sequence blocks for all its tokens, if that leaves some headroom."""
        shared = self._find_prefix(sequence)
        num_new = sequence.num_missing_blocks - len(shared)
        num_taken = num_new + sum(not self.pool.is_owned(block) for block in shared)
        # A block to grow for each running sequence; without it a newcomer would soon be
        # preempted again and its prefill wasted.
        if num_taken + len(self._running) > self.pool.num_available:
            return False
        self.pool.share(shared)
        try:
            new = self.pool.allocate(num_new)
        except Exception as error:  # noqa: BLE001 - of the machine's memory; its own failure only
            self.pool.release(shared)
            self._failures.append((sequence, error))
            return False
        sequence.block_table.extend(shared)
        sequence.block_table.extend(new)
        sequence.num_computed_tokens = len(shared) * BLOCK_SIZE
        sequence.status = Status.RUNNING
        self._waiting.remove(sequence)
        bisect.insort(self._running, sequence, key=_place)
        return True

    def _reserve(self, sequence: Sequence) -> bool:
        """Give a running sequence the blocks it lacks, preempting the last ones if need be.

        Returns:
            False if the sequence itself was the last and had to go, or it has failed.
        """
        num_missing = sequence.num_missing_blocks
        if num_missing <= 0:
            return True
        while num_missing > self.pool.num_available:
            last = self._running[-1]
            self.requeue(last)
            last.num_preemptions += 1
            self.num_preemptions += 1
            if last is sequence:
                return False
        try:
            sequence.block_table.extend(self.pool.allocate(num_missing))
        except Exception as error:  # noqa: BLE001 - as in _admit
            self._failures.append((sequence, error))
            return False
        return True

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks that already hold the start of the sequence.

        The last token is never among them: it has to be computed for its logits.
        """
        num_full = (len(sequence.token_ids) - 1) // BLOCK_SIZE
        if sequence.num_unscored_tokens:  # nor those whose logits are still to score the next one
            num_full = len(sequence.prompt_logprobs) // BLOCK_SIZE
        self._name_blocks(sequence, num_full)
        blocks: list[int] = []
        for index in range(num_full):
            block = self.pool.find(sequence.block_names[index], sequence.full_block(index))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _name_blocks(self, sequence: Sequence, num_full: int) -> None:
        names = sequence.block_names
        for index in range(len(names), num_full):
            before = names[-1] if names else self.pool.root(sequence.request.cache_salt)
            names.append(self.pool.name(before, sequence.full_block(index)))

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.block_table)
        del sequence.block_table[:]
        sequence.num_computed_tokens = 0


def _chunk(sequence: Sequence, budget: int, spare_rows: int) -> Scheduled:
    """As much of a sequence as the tokens left, and the rows of logits beside its own, allow."""
    num_uncomputed = sequence.num_uncomputed_tokens
    num_tokens = min(num_uncomputed, budget)
    if sequence.num_unscored_tokens:
        # What is computed again after a preemption has been scored, and needs no rows.
        num_known = max(0, len(sequence.prompt_logprobs) - sequence.num_computed_tokens)
        num_tokens = min(num_tokens, num_known + 1 + spare_rows)
    return Scheduled(sequence, num_tokens, samples=num_tokens == num_uncomputed)


def _rank(sequence: Sequence) -> tuple[int, int]:
    return sequence.rank


def _is_protected(sequence: Sequence) -> bool:
    return sequence.num_preemptions >= MAX_PREEMPTIONS


def _place(sequence: Sequence) -> tuple[bool, tuple[int, int]]:
    """Where a sequence stands among those that run."""
    return not _is_protected(sequence), sequence.rank
