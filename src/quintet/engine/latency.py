"""Times as histograms of fixed size: what they say does not depend on how many there were.

Buckets are spaced evenly in the logarithm, four to a factor of ten from 0.1 ms to
1,000 s, so a percentile is off by a third at most, at a few nanoseconds per time.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from itertools import accumulate
from operator import add, sub

BOUNDS_S = tuple(10.0 ** (i / 4) for i in range(-16, 13))
"""Upper bounds of the buckets, in seconds; one more bucket takes what is beyond."""

_EMPTY = (0,) * (len(BOUNDS_S) + 1)


@dataclass(frozen=True, slots=True)
class Histogram:
    """
    How often something took how long.

    Args:
        counts: per bucket of BOUNDS_S; the last one is unbounded.
        sum_s: of all times, in seconds.
    """

    counts: tuple[int, ...] = _EMPTY
    sum_s: float = 0.0

    @property
    def count(self) -> int:
        """How many times there were."""
        return sum(self.counts)

    @property
    def mean_s(self) -> float:
        """Their mean; 0 where there are none."""
        return self.sum_s / self.count if self.count else 0.0

    def percentile_s(self, percent: float) -> float:
        """The time that `percent` of them do not exceed, about; 0 where there are none.

        Raises:
            ValueError: a percentage below 0 or above 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"expected a percentage from 0 to 100, found {percent}")
        if self.count == 0:
            return 0.0
        rank = max(percent / 100 * self.count, 1e-9)
        below = list(accumulate(self.counts, initial=0))
        bucket = bisect.bisect_left(below, rank) - 1
        if bucket >= len(BOUNDS_S):
            return BOUNDS_S[-1]
        # Evenly spread within the bucket, in the logarithm as well.
        share = (rank - below[bucket]) / self.counts[bucket]
        return BOUNDS_S[bucket] * 10.0 ** ((share - 1) / 4)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(tuple(map(add, self.counts, other.counts)), self.sum_s + other.sum_s)

    def __sub__(self, earlier: Histogram) -> Histogram:
        return Histogram(tuple(map(sub, self.counts, earlier.counts)), self.sum_s - earlier.sum_s)


NO_TIMES = Histogram()


class Stopwatch:
    """A histogram in the making."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def record(self, seconds: float) -> None:
        """Count a time; one below zero, which only clocks out of step give, as zero."""
        self._counts[bisect.bisect_left(BOUNDS_S, seconds)] += 1
        if seconds > 0:
            self._sum_s += seconds

    def histogram(self) -> Histogram:
        """As it is now."""
        return Histogram(tuple(self._counts), self._sum_s)


@dataclass(slots=True)
class Rate:
    """
    Events per second lately: each counts less as it gets older, a third after ten seconds.

    Args:
        level: the events, so weighted, at `at_s`.
        at_s: when it was last counted, on `time.monotonic`'s clock.
    """

    level: float = 0.0
    at_s: float = 0.0

    def count(self, num_events: int, now_s: float) -> None:
        """These events happened now."""
        if now_s != self.at_s:  # the tokens of one step have one time
            self.level *= _decay(now_s - self.at_s)
            self.at_s = now_s
        self.level += num_events

    def level_at(self, now_s: float) -> float:
        """The level as it is at this time."""
        return self.level * _decay(now_s - self.at_s)

    def per_second(self, now_s: float) -> float:
        """The rate at this time, known from what happened until `at_s`."""
        return self.level_at(now_s) / _MEMORY_S


_MEMORY_S = 10.0


def _decay(seconds: float) -> float:
    return math.exp(-max(0.0, seconds) / _MEMORY_S)
