"""Which rows of a step's logits are sampled, and in which order.

A sequence without guesses has one row.  One with k guesses has 1 + k, and each
row after the first counts only once the token sampled before it turns out to be the
guess that was computed there.  So rows are sampled in rounds: the first row of each
sequence, then the second of those whose guess was right, and so on.  Each row meets
its sampler in exactly the state it has without speculation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from quintet.backends.base import Float32Array
from quintet.engine.scheduler import Scheduled
from quintet.engine.sequence import Sequence


@dataclass(slots=True)
class Row:
    """The next row of a sequence to sample from.

    Args:
        sequence: whose it is.
        index: into the step's logits.
        guesses: of the tokens to come, this row's first.
    """

    sequence: Sequence
    index: int
    guesses: tuple[int, ...]

    def after(self, token_id: int) -> Row | None:
        """The row that counts now that this one gave `token_id`, if one was computed."""
        if not self.guesses or self.guesses[0] != token_id:
            return None
        return Row(self.sequence, self.index + 1, self.guesses[1:])


def first_rows(batch: Iterable[Scheduled]) -> list[Row]:
    """The first row of each sequence that samples.  To be asked before the step is committed."""
    rows = []
    index = 0
    for scheduled in batch:
        if scheduled.samples:
            rows.append(Row(scheduled.sequence, index, scheduled.draft_ids))
            index += 1 + len(scheduled.draft_ids)
    return rows


def logits_of(rows: Collection[Row], logits: Float32Array) -> Float32Array:
    """The logits of these rows, copied only where they do not lie together."""
    indexes = [row.index for row in rows]
    first = indexes[0]
    if indexes == list(range(first, first + len(indexes))):
        return logits[first : first + len(indexes)]
    return logits[indexes]
