"""A smaller model guesses: greedy, batched over sequences, with a KV cache of its own.

Source: Leviathan et al. 2023, arXiv:2211.17192, section 2.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Collection
from dataclasses import dataclass, field

import numpy as np

from quintet.backends.base import Executor
from quintet.engine.block_pool import BlockPool
from quintet.engine.sequence import Sequence, Status, num_blocks
from quintet.engine.step_builder import StepPart, pack_step


class ModelDrafter:
    """
    A Drafter over an executor.

    Args:
        executor: of the smaller model; closed with the drafter.  It must have a row of
            logits for each sequence of a step.
        vocab_size: tokens that may be guessed.
        max_draft_tokens: guesses per sequence and step.
        max_num_mixed_prefill_tokens: tokens it reads at most before a guess where several
            sequences wait for it; see EngineConfig.
    """

    is_free = False

    def __init__(
        self,
        executor: Executor,
        *,
        vocab_size: int,
        max_draft_tokens: int,
        max_num_mixed_prefill_tokens: int,
    ) -> None:
        self.max_draft_tokens = max_draft_tokens
        self._executor = executor
        self._vocab_size = vocab_size
        self._max_num_mixed_prefill_tokens = max_num_mixed_prefill_tokens
        # What a preempted or finished sequence had is gone: finding prefixes again would
        # save little in a model this small.
        self._pool = BlockPool(executor.num_blocks, enable_prefix_cache=False)
        self._contexts: dict[Sequence, _Context] = {}

    def propose(self, wanted: Collection[tuple[Sequence, int]]) -> list[list[int]]:
        """Guesses for each sequence; see Drafter.

        None while its prompt is still being read, or where blocks are wanting.
        """
        contexts = [self._context(sequence, k) for sequence, k in wanted]
        active = [context for context in contexts if context is not None]
        self._catch_up(active)
        active = [context for context in active if context.guess]
        while active := [context for context in active if len(context.guess) < context.num_wanted]:
            self._run([(context, context.guess[-1:]) for context in active])
        return [[] if context is None else list(context.guess) for context in contexts]

    def forget(self, sequence: Sequence) -> None:
        """Take a sequence's blocks back; see Drafter."""
        context = self._contexts.pop(sequence, None)
        if context is not None:
            self._pool.release(context.block_table)

    def close(self) -> None:
        """Free the model.  Idempotent."""
        self._contexts.clear()
        self._executor.close()

    def audit(self) -> None:
        """Check the blocks.

        Raises:
            AssertionError: says which account is wrong.
        """
        self._pool.audit(context.block_table for context in self._contexts.values())

    def _context(self, sequence: Sequence, k: int) -> _Context | None:
        """A sequence's state, held against the tokens it has now, with room for k guesses."""
        context = self._contexts.get(sequence)
        if context is None:
            context = self._contexts[sequence] = _Context(sequence)
        context.settle()
        context.num_wanted = k
        missing = num_blocks(len(sequence.token_ids) + k) - len(context.block_table)
        if missing > self._pool.num_available:
            for other in [s for s in self._contexts if s.status is not Status.RUNNING]:
                self.forget(other)  # preempted; it starts anew when it runs again
        if missing > self._pool.num_available:
            return None
        if missing > 0:
            context.block_table.extend(self._pool.allocate(missing))
        return context

    def _catch_up(self, contexts: Collection[_Context]) -> None:
        """Compute the tokens that came since the last guess; one step's worth of them.

        Who has caught up gets its first guess.
        """
        budget = self._executor.max_num_batched_tokens
        if len(contexts) > 1:
            budget = min(budget, max(self._max_num_mixed_prefill_tokens, len(contexts)))
        parts: list[tuple[_Context, list[int]]] = []
        # The shortest first: a long prompt takes several calls and must not hold up the others.
        for context in sorted(contexts, key=lambda context: context.num_missing):
            token_ids = context.missing(budget)
            if token_ids:
                parts.append((context, token_ids))
                budget -= len(token_ids)
        self._run(parts)
        for context, token_ids in parts:
            context.num_settled += len(token_ids)

    def _run(self, parts: Collection[tuple[_Context, list[int]]]) -> None:
        """Compute tokens of each; who lacks none then gets its most likely next one."""
        if not parts:
            return
        ready = [len(token_ids) >= context.num_missing for context, token_ids in parts]
        logits = self._executor.run(
            pack_step(
                [
                    StepPart(
                        context.block_table,
                        context.num_computed,
                        token_ids,
                        [len(token_ids) - 1] if is_ready else [],
                    )
                    for (context, token_ids), is_ready in zip(parts, ready, strict=True)
                ]
            )
        )
        rows = iter(logits[:, : self._vocab_size])
        for (context, token_ids), is_ready in zip(parts, ready, strict=True):
            context.num_computed += len(token_ids)
            if is_ready:
                context.guess.append(int(np.argmax(next(rows))))


@dataclass(slots=True, eq=False)
class _Context:
    """What the small model has computed of one sequence."""

    sequence: Sequence
    block_table: array[int] = field(default_factory=lambda: array("i"))
    num_computed: int = 0  # guesses included
    num_settled: int = 0  # of those, before the guesses
    guess: list[int] = field(default_factory=list)
    num_wanted: int = 0

    @property
    def num_missing(self) -> int:
        return len(self.sequence.token_ids) - self.num_computed

    def missing(self, num_tokens: int) -> list[int]:
        return self.sequence.token_ids[self.num_computed : self.num_computed + num_tokens]

    def settle(self) -> None:
        """Keep the guesses that came true, whose keys and values are right; drop the others."""
        start = self.num_settled
        token_ids = self.sequence.token_ids
        # The last token is always missing: its logits make the first guess.
        limit = min(self.num_computed, len(token_ids) - 1)
        end = min(start, limit)
        while end < limit and token_ids[end] == self.guess[end - start]:
            end += 1
        self.num_computed = self.num_settled = end
        self.guess.clear()
