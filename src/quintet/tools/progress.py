"""How far the writing of a model is, for bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far the work is.

    Args:
        tensor: the one being worked on.
        num_tensors_done, num_tensors: complete ones, all of them.
        num_weights_done, num_weights: the same in weights, which take about equal time.
    """

    tensor: str
    num_tensors_done: int
    num_tensors: int
    num_weights_done: int
    num_weights: int

    @property
    def fraction(self) -> float:
        """0 to 1."""
        return self.num_weights_done / self.num_weights if self.num_weights else 1.0


class Reporter:
    """
    Counts weights and tells the caller.

    Args:
        sizes: weights of each tensor that will be written.
        progress: told of every step, if anybody is.
    """

    def __init__(self, sizes: Sequence[int], progress: Callable[[Progress], None] | None) -> None:
        self._progress = progress
        self._num_tensors = len(sizes)
        self._num_weights = sum(sizes)
        self._tensors_done = 0
        self._weights_done = 0

    def weights(self, name: str, count: int) -> None:
        """So many more of a tensor."""
        self._weights_done += count
        self._say(name)

    def tensor(self, name: str) -> None:
        """One is complete."""
        self._tensors_done += 1
        self._say(name)

    def _say(self, name: str) -> None:
        if self._progress is not None:
            self._progress(
                Progress(
                    name,
                    self._tensors_done,
                    self._num_tensors,
                    self._weights_done,
                    self._num_weights,
                )
            )
