"""Histograms and rates: right within what their size allows."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from quintet.engine.latency import BOUNDS_S, Histogram, Rate, Stopwatch


def recorded(*seconds: float) -> Histogram:
    stopwatch = Stopwatch()
    for value in seconds:
        stopwatch.record(value)
    return stopwatch.histogram()


@given(
    st.lists(st.floats(1.1e-4, 900.0), min_size=1, max_size=200),
    st.sampled_from([0, 1, 50, 90, 99, 100]),
)
def test_histogram_percentiles_are_within_a_bucket(seconds: list[float], percent: float) -> None:
    """Off by a factor of 10 ** (1/4) at most, by NumPy's reckoning of a percentile."""
    histogram = recorded(*seconds)
    exact = float(np.percentile(seconds, percent, method="inverted_cdf"))
    assert exact / 1.79 <= histogram.percentile_s(percent) <= exact * 1.79
    assert histogram.count == len(seconds)
    assert histogram.mean_s == pytest.approx(np.mean(seconds))


def test_histogram_takes_any_time() -> None:
    """Nothing is lost below the first bound or beyond the last."""
    histogram = recorded(-1.0, 0.0, 1e-9, 1e6)
    assert histogram.counts[0] == 3
    assert histogram.counts[-1] == 1
    assert histogram.percentile_s(100) == BOUNDS_S[-1]
    assert histogram.percentile_s(10) <= BOUNDS_S[0]
    assert histogram.sum_s == pytest.approx(1e6)


def test_histogram_of_nothing_is_zero() -> None:
    """No times, no percentile, and a percentage that is none is refused."""
    assert (Histogram().count, Histogram().mean_s, Histogram().percentile_s(50)) == (0, 0, 0)
    with pytest.raises(ValueError, match="101"):
        Histogram().percentile_s(101)


def test_histograms_add_and_subtract() -> None:
    """Two engines' times are one histogram; what came later is a difference."""
    early, late = recorded(0.01, 0.2), recorded(3.0)
    both = recorded(0.01, 0.2, 3.0)
    assert early + late == both
    assert (both - early).counts == late.counts
    assert (both - early).sum_s == pytest.approx(3.0)


def test_rate_follows_what_happens_and_forgets() -> None:
    """A steady stream shows its rate after a while; silence lets it fade."""
    rate = Rate(at_s=100.0)
    for i in range(1, 1001):
        rate.count(2, 100.0 + i * 0.1)
    assert rate.per_second(200.0) == pytest.approx(20.0, rel=0.02)
    assert rate.per_second(210.0) == pytest.approx(20.0 / math.e, rel=0.02)
    assert rate.per_second(1000.0) < 1e-9
