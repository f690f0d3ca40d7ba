"""Whether guesses pay: how often they come true, against what checking them costs.

A step of r rows takes about a + b*r seconds and gives each of its n sequences a
token.  One more row, right with probability p, gives p more tokens and costs b more
seconds, so it raises tokens per second as long as p > n * b / (a + b*r).  Where
reading the weights dominates (few rows) b is small and long shots pay; where
arithmetic does (many rows) the bound nears 1 and nothing does.

Source: the expected length of an accepted run, Leviathan et al. 2023,
arXiv:2211.17192, section 3.1; the bound is measured here rather than assumed.
"""

from __future__ import annotations

import math

_STEP_DECAY = 0.98  # of what older steps weigh: some 50 count
_MIN_STEPS = 8.0
_ASSUMED_ROW_COST = 0.1  # b / a until measured; a 4-bit model of 0.6 B parameters has about this
_DRAFT_DECAY = 0.8  # of what a sequence's older guesses weigh
_MAX_RATE = 0.99  # certainty would be believed for ever
_SURE_OF = 1.5  # a row must promise this many times its cost: costs are noisy, and so are rates


class StepCost:
    """What rows cost: a line through the latest steps' times, by least squares."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._draft_s = 0.0  # of one guess

    def record(self, num_rows: int, seconds: float) -> None:
        """A step in which every row had its logits computed."""
        if self._n >= _MIN_STEPS:
            # A step that was interrupted says nothing about rows.
            seconds = min(seconds, 4 * self._y / self._n)
        self._n = self._n * _STEP_DECAY + 1.0
        self._x = self._x * _STEP_DECAY + num_rows
        self._y = self._y * _STEP_DECAY + seconds
        self._xx = self._xx * _STEP_DECAY + num_rows * num_rows
        self._xy = self._xy * _STEP_DECAY + num_rows * seconds

    def record_drafting(self, num_drafts: int, seconds: float) -> None:
        """Making these guesses took so long."""
        self._draft_s += 0.2 * (seconds / num_drafts - self._draft_s)

    def bound(self, num_tokens: int, num_rows: int) -> float:
        """The probability from which one more guess pays, in a step of this size.

        Args:
            num_tokens: sequences that get a token.
            num_rows: rows to compute without guesses.
        """
        base_s, row_s = self._line()
        step_s = base_s + row_s * num_rows
        return _SURE_OF * num_tokens * (row_s + self._draft_s) / step_s

    def _line(self) -> tuple[float, float]:
        """Seconds of a step without rows, and of a row."""
        if self._n < 1:
            return 1.0, _ASSUMED_ROW_COST
        mean_x, mean_y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - mean_x * mean_x
        if self._n < _MIN_STEPS or variance < 0.05:
            base_s = mean_y / (1 + _ASSUMED_ROW_COST * mean_x)
            return base_s, base_s * _ASSUMED_ROW_COST
        slope = (self._xy / self._n - mean_x * mean_y) / variance
        slope = min(max(slope, 0.0), mean_y / mean_x)
        return max(mean_y - slope * mean_x, 0.0), slope


class Acceptance:
    """How often one sequence's guesses have come true lately."""

    def __init__(self) -> None:
        # As if three of four had: the first guesses are to be made, and soon judged.
        self._right, self._checked = 3.0, 4.0

    @property
    def rate(self) -> float:
        """The share of guesses that come true where all before them did."""
        return min(self._right / self._checked, _MAX_RATE)

    def record(self, num_right: int, num_guessed: int) -> None:
        """So many of the guesses were right; only the first wrong one was checked after them."""
        self._right = self._right * _DRAFT_DECAY + num_right
        num_checked = min(num_right + 1, num_guessed)
        self._checked = self._checked * _DRAFT_DECAY + num_checked

    def worthwhile(self, bound: float, at_most: int) -> int:
        """The number of guesses of which even the last is right with probability `bound`."""
        if bound <= 0:
            return at_most
        if self.rate <= bound or bound >= 1:
            return 0
        return min(at_most, int(math.log(bound) / math.log(self.rate)))
