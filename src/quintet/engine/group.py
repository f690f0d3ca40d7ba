"""The answers of one request: sequences that share a prompt and end together where one fails."""

from __future__ import annotations

from collections.abc import Collection

from quintet.engine.sequence import Sequence


class SequenceGroup:
    """
    The sequences of one request.

    The first one runs ahead until the prompt is computed; then the others start, find
    the prompt's full blocks in the prefix cache and share them.  (Where there is no prefix
    cache, each computes the prompt for itself.)

    Args:
        sequences: by index.
    """

    def __init__(self, sequences: Collection[Sequence]) -> None:
        self.unfinished = list(sequences)
        self._held = self.unfinished[1:]

    @property
    def started(self) -> list[Sequence]:
        """Unfinished sequences that the scheduler knows."""
        return [sequence for sequence in self.unfinished if sequence not in self._held]

    def release(self) -> list[Sequence]:
        """The sequences that may start now that the prompt is computed; none the second time."""
        released, self._held = self._held, []
        return released
