"""Mirostat 1 and 2 against plain NumPy, and its feedback at work."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sampling_oracle import assert_same_distribution, make_row, mirostat

from quintet.sampling import SamplingParams, sample


def rows_of(num_rows: int, vocab_size: int, scale: float = 3.0) -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(0, scale, (num_rows, vocab_size)).astype(np.float32)


@pytest.mark.parametrize("vocab_size", [2, 7, 50, 300, 5000])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [0.5, 3.0, 8.0])
def test_mirostat_agrees_with_numpy(vocab_size: int, version: int, tau: float) -> None:
    """Step by step: the tokens kept, the token drawn, and so the state behind them."""
    logits = rows_of(60, vocab_size)
    params = SamplingParams(mirostat=version, mirostat_tau=tau, mirostat_eta=0.2, temperature=0.9)
    row = make_row(params, vocab_size, seed=17)
    steps = mirostat(list(logits.astype(np.float64)), params, seed=17, vocab_size=vocab_size)
    for position, (token_id, wanted) in enumerate(steps):
        assert_same_distribution(row.distribution(logits[position].copy()), wanted)
        assert sample(logits[position][None].copy(), [row])[0].token_id == token_id


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_surprise(version: int) -> None:
    """Over 1,500 tokens the mean surprise comes within 0.3 bits of the target."""
    logits = rows_of(1500, 2000)
    for tau in (2.0, 4.0):
        row = make_row(SamplingParams(mirostat=version, mirostat_tau=tau), 2000, seed=1)
        surprises = []
        for position in range(len(logits)):
            kept = row.distribution(logits[position])
            token = sample(logits[position][None], [row])[0]
            surprises.append(-np.log2(kept[token.token_id]))
        assert np.mean(surprises[200:]) == pytest.approx(tau, abs=0.3)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_takes_any_row(version: int) -> None:
    """Flat, certain, single-token and mostly excluded rows give an allowed token each time."""
    params = SamplingParams(mirostat=version, mirostat_tau=0.0, mirostat_eta=1.0)
    inf = np.inf
    rows = np.array(
        [[0, 0, 0, 0], [90, 0, 0, 0], [-inf, 1, -inf, -inf], [-inf, 2, 1, -inf], [1, 1, 0, -inf]],
        np.float32,
    )
    for seed in range(20):
        row = make_row(params, 4, seed=seed)
        for logits in np.concatenate([rows, rows]):
            token = sample(logits[None].copy(), [row])[0]
            assert token.error is None
            assert logits[token.token_id] > -inf
    generous = SamplingParams(mirostat=version, mirostat_tau=100.0, mirostat_eta=1.0)
    row = make_row(generous, 4)
    for _ in range(2000):  # the target is out of reach: the state runs away, and all are kept
        sample(rows[4][None].copy(), [row])
    assert list(row.distribution(rows[4])) == [0, 1, 2]


def test_mirostat_state_is_the_rows_own() -> None:
    """Rows in one call learn apart: each gives what it gives alone."""
    logits = rows_of(40, 300)
    params = [SamplingParams(mirostat=v, mirostat_tau=t) for v in (1, 2) for t in (1.0, 5.0)]
    alone = []
    for seed, one in enumerate(params):
        row = make_row(one, 300, seed=seed)
        alone.append([sample(step[None].copy(), [row])[0] for step in logits])
    rows = [make_row(one, 300, seed=seed) for seed, one in enumerate(params)]
    together = [sample(np.stack([step] * len(rows)), rows) for step in logits]
    assert [list(tokens) for tokens in zip(*together, strict=True)] == alone
