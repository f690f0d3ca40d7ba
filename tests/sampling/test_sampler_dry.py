"""DRY and the penalties' window, against plain Python that tries every earlier place."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_oracle import (
    assert_same_distribution,
    distribution,
    make_row,
    processed_logits,
)

from quintet.sampling import SamplingParams

LOGITS = np.random.default_rng(3).normal(0, 2, 12).astype(np.float32)


def log_falls(params: SamplingParams, prompt: list[int], **more: Any) -> dict[int, float]:
    """How far each token's logit fell below that of token 11, which nobody repeats; 0 left out."""
    found = make_row(params, 12, prompt=prompt, **more).distribution(np.zeros(12, np.float32))
    falls = {i: float(np.log(found[11] / found.get(i, 1e-300))) for i in range(11)}
    return {i: pytest.approx(fall, abs=1e-4) for i, fall in falls.items() if abs(fall) > 1e-4}


def test_dry_grows_with_the_repetition() -> None:
    """The token that followed last time falls by multiplier * base ** (length - allowed_length)."""
    params = SamplingParams(dry_multiplier=0.5, dry_base=2.0)
    assert log_falls(params, [1, 2, 3, 4, 1]) == {}
    assert log_falls(params, [1, 2, 3, 4, 1, 2]) == {3: 0.5}
    assert log_falls(params, [1, 2, 3, 4, 1, 2, 3]) == {4: 1.0}
    assert log_falls(params, [7, 1, 2, 3, 4, 7, 1, 2, 3]) == {4: 2.0}
    assert log_falls(params, [1, 2, 3, 9, 1, 2, 4, 9, 1, 2]) == {3: 0.5, 4: 1.0}
    assert log_falls(params, [1, 2, 3, 4, 1], output=[2, 3]) == {4: 1.0}
    longer = SamplingParams(dry_multiplier=0.5, dry_base=2.0, dry_allowed_length=3)
    assert log_falls(longer, [1, 2, 3, 4, 1, 2]) == {}
    assert log_falls(longer, [1, 2, 3, 4, 1, 2, 3]) == {4: 0.5}


def test_dry_looks_back_so_far() -> None:
    """dry_penalty_last_n bounds what is read; 0 turns DRY off, -1 reads all."""
    prompt = [1, 2, 3, 4, 1, 2]
    for last_n, falls in [(0, {}), (3, {}), (5, {}), (6, {3: 0.5}), (99, {3: 0.5}), (-1, {3: 0.5})]:
        params = SamplingParams(dry_multiplier=0.5, dry_base=2.0, dry_penalty_last_n=last_n)
        assert log_falls(params, prompt) == falls


def test_dry_stops_at_breakers() -> None:
    """No repetition reaches over a breaker, of one token or several, and none is penalised."""
    params = SamplingParams(dry_multiplier=0.5, dry_base=2.0)
    prompt = [1, 2, 3, 4, 1, 2, 3]
    assert log_falls(params, prompt, dry_breakers=[(1,)]) == {4: 0.5}
    assert log_falls(params, prompt, dry_breakers=[(2,)]) == {}
    assert log_falls(params, prompt, dry_breakers=[(4,)]) == {}
    assert log_falls(params, prompt, dry_breakers=[(1, 2)]) == {}
    assert log_falls(params, [1, 2, 3, 4, 9, 1, 2, 3], dry_breakers=[(9, 1)]) == {4: 0.5}
    assert log_falls(params, [1, 2, 3, 4, 9, 1, 2, 3], dry_breakers=[(9, 2)]) == {4: 1.0}


def test_dry_penalties_stay_finite() -> None:
    """A repetition too long for floats excludes its token, and nothing else breaks."""
    params = SamplingParams(dry_multiplier=100, dry_base=100, temperature=0)
    row = make_row(params, 12, prompt=[5] * 3000)
    logits = LOGITS.copy()
    logits[5] = 100
    assert row.distribution(logits) == {int(np.argmax(LOGITS)): 1.0}


def test_dry_is_linear_in_the_history() -> None:
    """The worst history, one token over and over, costs less than 50 ms at 100,000 tokens."""
    row = make_row(SamplingParams(dry_multiplier=0.8), 12, prompt=[1] * 100_000)
    logits = LOGITS.copy()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        row.distribution(logits)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.05


@settings(max_examples=400)
@given(
    prompt=st.lists(st.integers(0, 3), max_size=40),
    output=st.lists(st.integers(0, 3), max_size=20),
    breakers=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple), max_size=3),
    allowed_length=st.integers(1, 4),
    dry_last_n=st.sampled_from([-1, 0, 1, 7, 30]),
    penalty_last_n=st.sampled_from([-1, 0, 1, 5, 25]),
    dry_first=st.booleans(),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
)
def test_history_agrees_with_numpy(
    prompt: list[int],
    output: list[int],
    breakers: list[tuple[int, ...]],
    allowed_length: int,
    dry_last_n: int,
    penalty_last_n: int,
    dry_first: bool,
    repetition_penalty: float,
) -> None:
    """DRY and windowed penalties over any history are what the definition says."""
    params = SamplingParams(
        dry_multiplier=0.3,
        dry_base=1.2,
        dry_allowed_length=allowed_length,
        dry_penalty_last_n=dry_last_n,
        penalty_last_n=penalty_last_n,
        repetition_penalty=repetition_penalty,
        presence_penalty=0.3,
        frequency_penalty=0.1,
        sampler_order=("dry", "penalties") if dry_first else ("penalties", "dry"),
    )
    row = make_row(params, 12, prompt=prompt, output=output, dry_breakers=breakers)
    x = processed_logits(LOGITS, params, prompt, output, dry_breakers=breakers)
    assert_same_distribution(row.distribution(LOGITS.copy()), distribution(x, params))


def test_penalty_window_forgets() -> None:
    """A token that has left the window is as if it had not been; 0 turns the penalties off."""
    logits = np.zeros(12, np.float32)
    for last_n, wanted in [(0, set()), (1, {4}), (2, {3, 4}), (9, {2, 3, 4}), (-1, {2, 3, 4})]:
        params = SamplingParams(presence_penalty=1.0, penalty_last_n=last_n)
        found = make_row(params, 12, prompt=[1], output=[2, 3, 4]).distribution(logits)
        assert {i for i, p in found.items() if p < 0.05} == wanted


@pytest.mark.parametrize("breakers", [[(12,)], [(-1,)], [(1, 12)], [()]])
def test_dry_breakers_outside_the_vocabulary(breakers: list[tuple[int, ...]]) -> None:
    """Breakers are token ids of the vocabulary, at least one each."""
    with pytest.raises(ValueError, match="token id"):
        make_row(SamplingParams(dry_multiplier=1.0), 12, dry_breakers=breakers)
