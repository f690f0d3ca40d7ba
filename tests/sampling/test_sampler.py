"""quintet.sampling.sampler: whole rows, seeds, log-probabilities, bad rows and bad calls."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sampling_oracle import make_row, philox4x32_10, uniform

from quintet import _native
from quintet.errors import RequestError
from quintet.sampling import RowSampler, SampledToken, SamplingParams, sample, score

NUCLEUS = SamplingParams(temperature=0.9, top_k=50, top_p=0.95)


def normal_rows(num_rows: int, vocab_size: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, (num_rows, vocab_size)).astype(np.float32)


def generate(row: RowSampler, logits: NDArray[np.float32]) -> list[int]:
    """One token per row of logits, each in a call of its own."""
    return [sample(step[None].copy(), [row])[0].token_id for step in logits]


def test_philox_known_answers() -> None:
    """The oracle here gives Random123's published answers (kat_vectors, philox4x32 10)."""
    ones = 2**32 - 1
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert philox4x32_10([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox4x32_10([ones] * 4, [ones] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert philox4x32_10(pi, [0xA4093822, 0x299F31D0]) == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 + 12345, 2**64 - 1])
def test_sample_draws_by_the_documented_generator(seed: int) -> None:
    """The token at output position n is the one where the n-th Philox number falls, in id order."""
    logits = normal_rows(200, 50)
    row = make_row(SamplingParams(), 50, seed=seed)
    p = np.exp(logits.astype(np.float64))
    edges = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
    wanted = [int(np.searchsorted(edges[n], uniform(seed, n), side="right")) for n in range(200)]
    assert generate(row, logits) == wanted
    assert row.num_accepted == 200


def test_sample_seed_is_modulo_64_bits() -> None:
    """A negative seed is the unsigned one with the same bits."""
    logits = normal_rows(50, 300)
    runs = [generate(make_row(SamplingParams(), 300, seed=s), logits) for s in (-1, 2**64 - 1, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize(
    ("params", "vocab_size"),
    [
        (SamplingParams(), 7),
        (SamplingParams(temperature=0.5), 300),
        (SamplingParams(top_k=5), 300),
        (SamplingParams(top_p=0.6), 300),
        (SamplingParams(min_p=0.2), 300),
        (SamplingParams(typical_p=0.7), 300),
        (SamplingParams(top_n_sigma=1.2), 300),
        (SamplingParams(dynatemp_range=0.7), 300),
    ],
    ids=["plain", "temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "dynatemp"],
)
def test_sample_frequencies_fit_the_distribution(params: SamplingParams, vocab_size: int) -> None:
    """Over 20,000 draws from fixed seeds the chi-square statistic is within 5 sigma."""
    num_draws = 20_000
    logits = normal_rows(1, vocab_size, seed=5)
    probabilities = make_row(params, vocab_size).distribution(logits[0])
    counts = np.zeros(vocab_size)
    for seed in range(4):
        row = make_row(params, vocab_size, seed=seed)
        for _ in range(num_draws // 4):
            counts[sample(logits, [row])[0].token_id] += 1
    p = np.zeros(vocab_size)
    p[list(probabilities)] = list(probabilities.values())
    assert counts[p == 0].sum() == 0
    frequent = p * num_draws >= 5
    observed = np.append(counts[frequent], counts[~frequent].sum())
    expected = np.append(p[frequent], p[~frequent].sum()) * num_draws
    observed, expected = observed[expected > 0], expected[expected > 0]
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    freedom = len(observed) - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_sample_greedy_ties_go_to_the_lowest_id() -> None:
    """Temperature 0 takes the largest logit, of equal ones the lowest id, anywhere in the row."""
    for vocab_size in (1, 7, 128, 129, 151_936):
        for first in {0, vocab_size // 2, vocab_size - 1}:
            logits = normal_rows(1, vocab_size)
            logits[0, first:] = 50.0
            row = make_row(SamplingParams.greedy(), vocab_size)
            assert sample(logits, [row])[0].token_id == first
    signs = np.array([[-1.0, 0.0, -0.0], [-1.0, -0.0, 0.0]], np.float32)
    rows = [make_row(SamplingParams.greedy(), 3) for _ in signs]
    assert [token.token_id for token in sample(signs, rows)] == [1, 1]


@pytest.mark.parametrize("num_threads", [None, 1, 2, 3])
def test_sample_is_the_same_in_any_batch(num_threads: int | None) -> None:
    """A seeded sequence gets the same tokens alone, in batches of any order, and in two halves."""
    threads = None if num_threads is None else _native.ThreadPool(num_threads)
    num_steps, vocab_size = 12, 30_000  # enough for threads to be woken
    choices = [
        SamplingParams.greedy(),
        SamplingParams(),
        NUCLEUS,
        SamplingParams(top_p=0.8, repetition_penalty=1.2, logprobs=3),
        SamplingParams(min_p=0.05, presence_penalty=1.0, frequency_penalty=0.5),
        SamplingParams(typical_p=0.9, top_n_sigma=2.5, dynatemp_range=0.5, penalty_last_n=3),
        SamplingParams(xtc_probability=0.5, xtc_threshold=0.001, dry_multiplier=0.8, logprobs=1),
    ]
    logits = np.stack([normal_rows(num_steps, vocab_size, seed=i) for i in range(len(choices))])

    def rows() -> list[RowSampler]:
        return [make_row(p, vocab_size, prompt=[1, 2], seed=i) for i, p in enumerate(choices)]

    alone = [
        [sample(logits[i, step][None].copy(), [row])[0] for step in range(num_steps)]
        for i, row in enumerate(rows())
    ]
    for order in ([0, 1, 2, 3, 4, 5, 6], [4, 2, 0, 6, 3, 1, 5]):
        samplers = rows()
        for step in range(num_steps):
            together = sample(logits[order, step], [samplers[i] for i in order], threads=threads)
            assert together == [alone[i][step] for i in order]
    for i, params in enumerate(choices):
        output = [token.token_id for token in alone[i][:5]]
        rebuilt = make_row(params, vocab_size, prompt=[1, 2], output=output, seed=i)
        rest = [sample(logits[i, step][None].copy(), [rebuilt])[0] for step in range(5, num_steps)]
        assert rest == alone[i][5:]


@pytest.mark.parametrize("vocab_size", [1, 7, 128, 151_936])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sample_logprobs_are_the_models_own(vocab_size: int, temperature: float) -> None:
    """Log-probabilities are the log-softmax of the raw logits, whatever the parameters do."""
    logits = normal_rows(1, vocab_size)
    x = logits[0].astype(np.float64)
    wanted = x - (x.max() + np.log(np.exp(x - x.max()).sum()))
    params = SamplingParams(
        temperature=temperature,
        logprobs=20,
        top_k=3,
        repetition_penalty=1.5,
        logit_bias={0: 20.0},
    )
    token = sample(logits, [make_row(params, vocab_size, prompt=[0])])[0]
    assert token.logprob == pytest.approx(wanted[token.token_id], abs=2e-6)
    order = np.lexsort((np.arange(vocab_size), -x))[:20]
    assert token.top_logprobs is not None
    assert [i for i, _ in token.top_logprobs] == order.tolist()
    assert [p for _, p in token.top_logprobs] == pytest.approx(wanted[order], abs=2e-6)


def test_sample_logprobs_on_request_only() -> None:
    """None gives none; 0 gives the chosen token's alone; excluded tokens are never listed."""
    logits = np.array([[1.0, -np.inf, 1.0, -np.inf]], np.float32)

    def token(logprobs: int | None) -> SampledToken:
        return sample(logits, [make_row(SamplingParams(temperature=0, logprobs=logprobs), 4)])[0]

    half = pytest.approx(np.log(0.5))
    assert token(None) == SampledToken(0)
    assert token(0) == SampledToken(0, half, ())
    assert token(3) == SampledToken(0, half, ((0, half), (2, half)))


@pytest.mark.parametrize("vocab_size", [1, 7, 128, 1000])
@pytest.mark.parametrize("params", [SamplingParams.greedy(), NUCLEUS, SamplingParams(logprobs=2)])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, "nothing"])
def test_sample_a_bad_row_fails_alone(vocab_size: int, params: SamplingParams, bad: Any) -> None:
    """NaN, +inf, or nothing above -inf fails that row; the others are as if it were not there."""
    for position in {0, vocab_size // 2, vocab_size - 1}:
        logits = normal_rows(3, vocab_size)
        wanted = sample(logits[[0, 2]], [make_row(params, vocab_size, seed=s) for s in (0, 2)])
        if bad == "nothing":
            logits[1] = -np.inf
        else:
            logits[1, position] = bad
        rows = [make_row(params, vocab_size, seed=s) for s in range(3)]
        found = sample(logits, rows)
        assert [found[0], found[2]] == wanted
        assert found[1] == SampledToken(-1, None, None, "numerical")
        assert [row.num_accepted for row in rows] == [1, 0, 1]
        assert rows[1].distribution(logits[1]) == {}


def test_sample_nan_is_seen_below_bias_and_mask() -> None:
    """A NaN is not hidden by min_tokens excluding its token or by a bias on it."""
    logits = np.array([[np.nan, 1.0], [np.inf, 1.0]], np.float32)
    for params in (
        SamplingParams(min_tokens=1, stop_token_ids=[0]),
        SamplingParams(logit_bias={0: -100}),
    ):
        found = sample(logits.copy(), [make_row(params, 2), make_row(params, 2)])
        assert [token.error for token in found] == ["numerical"] * 2


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-3, 100.0])
def test_sample_extreme_temperatures_and_logits(temperature: float) -> None:
    """The smallest temperature is greedy, and the largest float logits stay numbers."""
    largest = np.finfo(np.float32).max
    logits = np.array([[1.0, 1.5, -largest], [0.0, largest, -largest]], np.float32)
    params = SamplingParams(temperature=temperature, repetition_penalty=0.01)
    rows = [make_row(params, 3, prompt=[0, 1, 2]) for _ in logits]
    cold = temperature < 1
    for row, row_logits in zip(rows, logits, strict=True):
        found = row.distribution(row_logits)
        assert sum(found.values()) == pytest.approx(1.0)
        assert not cold or found == {1: 1.0}
    assert all(token.error is None for token in sample(logits, rows))


def test_sample_ignores_padding_columns() -> None:
    """Columns past the vocabulary are neither chosen nor looked at, and rows may be strided."""
    wide = np.full((4, 500), np.nan, np.float32)
    wide[:, :300] = normal_rows(4, 300)
    params = SamplingParams(logprobs=5)
    rows = [make_row(params, 300, seed=s) for s in range(4)]
    wanted = sample(normal_rows(4, 300), [make_row(params, 300, seed=s) for s in range(4)])
    assert sample(wide, rows) == wanted
    rows = [make_row(params, 300, seed=s) for s in (0, 2)]
    assert sample(wide[::2], rows) == wanted[::2]


def test_sample_no_rows() -> None:
    """A step without rows gives no tokens."""
    assert sample(np.zeros((0, 10), np.float32), []) == []


@pytest.mark.parametrize(
    ("logits", "error"),
    [
        (np.zeros((1, 10), np.float64), TypeError),
        (np.zeros((1, 10), np.float16), TypeError),
        (np.zeros(10, np.float32), TypeError),
        (np.zeros((1, 1, 10), np.float32), TypeError),
        ([[0.0] * 10], TypeError),
        (np.zeros((1, 9), np.float32), ValueError),
        (np.zeros((2, 10), np.float32), ValueError),
        (np.zeros((0, 10), np.float32), ValueError),
        (np.zeros((1, 20), np.float32)[:, ::2], ValueError),
        (np.zeros((1, 20), np.float32)[:, ::-1], ValueError),
    ],
)
def test_sample_refuses_wrong_arrays(logits: Any, error: type[Exception]) -> None:
    """The array's type and shape are checked before it is touched."""
    with pytest.raises(error):
        sample(logits, [make_row(SamplingParams(), 10)])


def test_sample_refuses_what_it_cannot_write() -> None:
    """Rows are edited in place, so neither a read-only array nor overlapping rows will do."""
    frozen = np.zeros((1, 10), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        sample(frozen, [make_row(SamplingParams(), 10)])
    overlapping = np.lib.stride_tricks.as_strided(np.zeros(20, np.float32), (2, 10), (4, 4))
    with pytest.raises(ValueError, match="overlap"):
        sample(overlapping, [make_row(SamplingParams(), 10), make_row(SamplingParams(), 10)])


@pytest.mark.parametrize("sampler", [None, 1, SamplingParams()])
def test_native_sample_refuses_what_is_no_sampler(sampler: Any) -> None:
    """An object of another kind in place of a sampler is a TypeError."""
    with pytest.raises(TypeError, match="RowSampler"):
        _native.sample(np.zeros((1, 10), np.float32), (sampler,))


def test_row_sampler_refuses_ids_outside_the_vocabulary() -> None:
    """No id from outside reaches the logits of another row."""
    with pytest.raises(RequestError) as caught:
        make_row(SamplingParams(logit_bias={10: 1.0}), 10)
    assert caught.value.parameter == "logit_bias"
    for bad in (-1, 10):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            make_row(SamplingParams(), 10, eos=[bad])
        with pytest.raises(ValueError, match="outside the vocabulary"):
            make_row(SamplingParams(repetition_penalty=1.1), 10, prompt=[bad])
        with pytest.raises(ValueError, match="outside the vocabulary"):
            make_row(SamplingParams(), 10).accept(bad)
    with pytest.raises(ValueError, match="vocab_size"):
        make_row(SamplingParams(), 0)


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_native_row_sampler_checks_again(name: str, value: float) -> None:
    """The native side does not rely on the parameters having been checked."""
    params = SamplingParams()
    object.__setattr__(params, name, value)
    with pytest.raises(ValueError, match=name):
        make_row(params, 10)


def test_sample_from_several_threads() -> None:
    """Threads with rows of their own do not disturb each other."""
    logits = normal_rows(30, 5000)
    wanted = [generate(make_row(NUCLEUS, 5000, seed=s), logits) for s in range(4)]
    found: dict[int, list[int]] = {}
    threads = [
        threading.Thread(
            target=lambda s=s: found.update({s: generate(make_row(NUCLEUS, 5000, seed=s), logits)})
        )
        for s in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[s] for s in range(4)] == wanted


def test_sample_on_threads_keeps_the_order_of_one_sampler() -> None:
    """A sampler that is named several times sees its rows in order."""
    logits = normal_rows(64, 3000)
    wanted = generate(make_row(NUCLEUS, 3000, seed=1), logits)
    row = make_row(NUCLEUS, 3000, seed=1)
    tokens = sample(logits.copy(), [row] * 64, threads=_native.ThreadPool(3))
    assert [token.token_id for token in tokens] == wanted


def test_sample_on_threads_a_bad_row_fails_alone() -> None:
    logits = normal_rows(40, 5000)
    wanted = [sample(row[None].copy(), [make_row(NUCLEUS, 5000)])[0] for row in logits]
    logits[7, 5] = np.nan
    wanted[7] = SampledToken(-1, error="numerical")
    rows = [make_row(NUCLEUS, 5000) for _ in range(40)]
    assert sample(logits, rows, threads=_native.ThreadPool(2)) == wanted


@pytest.mark.parametrize("num_threads", [0, -1, 5000])
def test_thread_pool_refuses_other_numbers(num_threads: int) -> None:
    with pytest.raises(ValueError, match="num_threads"):
        _native.ThreadPool(num_threads)


@given(
    row=st.lists(st.floats(width=32), min_size=1, max_size=200),
    params=st.sampled_from([SamplingParams.greedy(), NUCLEUS, SamplingParams(logprobs=5)]),
)
def test_sample_any_floats(row: list[float], params: SamplingParams) -> None:
    """Any row of floats gives a token that the model allows, or the numerical error; unchanged."""
    logits = np.array([row], np.float32)
    before = logits.copy()
    token = sample(logits, [make_row(params, len(row))])[0]
    np.testing.assert_array_equal(logits.view(np.int32), before.view(np.int32))
    good = not np.isnan(before).any() and np.isfinite(before.max())
    assert (token.error is None) == good
    if good:
        assert before[0, token.token_id] > -np.inf
        assert token.logprob is None or np.isfinite(token.logprob)


def test_score_is_the_log_softmax() -> None:
    """Given tokens get the log-softmax of their row, padding columns and bad rows aside."""
    logits = np.full((4, 500), np.nan, np.float32)
    logits[:, :300] = normal_rows(4, 300)
    logits[2, 7] = np.inf
    x = logits[:, :300].astype(np.float64)
    found = score(logits, [5, 299, 1, 0], vocab_size=300, num_top=2)
    assert found[2] is None
    for row, token_id in ((0, 5), (1, 299), (3, 0)):
        wanted = x[row] - (x[row].max() + np.log(np.exp(x[row] - x[row].max()).sum()))
        entry = found[row]
        assert entry is not None
        assert entry.logprob == pytest.approx(wanted[token_id], abs=2e-6)
        best = np.argsort(-wanted)[:2]
        assert entry.top == tuple((int(i), pytest.approx(wanted[i], abs=2e-6)) for i in best)
    assert score(logits[::3, :400], [5, 0], vocab_size=300, num_top=2) == [found[0], found[3]]
    assert score(np.zeros((0, 3), np.float32), [], vocab_size=3, num_top=0) == []
    for num_threads in (1, 2, 3):
        threads = _native.ThreadPool(num_threads)
        assert score(logits, [5, 299, 1, 0], vocab_size=300, num_top=2, threads=threads) == found


@pytest.mark.parametrize(
    ("logits", "token_ids", "vocab_size", "num_top", "error"),
    [
        (np.zeros((1, 9), np.float32), [0], 10, 0, ValueError),
        (np.zeros((2, 10), np.float32), [0], 10, 0, ValueError),
        (np.zeros((1, 10), np.float32), [10], 10, 0, ValueError),
        (np.zeros((1, 10), np.float32), [-1], 10, 0, ValueError),
        (np.zeros((1, 10), np.float32), [0], 10, -1, ValueError),
        (np.zeros((1, 10), np.float32), [0], 0, 0, ValueError),
        (np.zeros((1, 10), np.float64), [0], 10, 0, TypeError),
        (np.zeros((2, 20), np.float32)[:, ::2], [0, 0], 10, 0, ValueError),
    ],
)
def test_score_refuses_wrong_arrays(
    logits: Any, token_ids: list[int], vocab_size: int, num_top: int, error: type[Exception]
) -> None:
    """The array and the ids are checked before they are read."""
    with pytest.raises(error):
        score(logits, token_ids, vocab_size=vocab_size, num_top=num_top)


def packed(allowed: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """A row's mask as words, ids beyond the vocabulary set: they must not matter."""
    padding = -len(allowed) % 32
    bits = np.concatenate([allowed, np.ones(padding, bool)])
    return np.packbits(bits, bitorder="little").view(np.uint32)


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 127, 129, 1000])
@pytest.mark.parametrize("params", [SamplingParams(temperature=0), NUCLEUS])
def test_masked_rows_are_rows_without_the_others(vocab_size: int, params: SamplingParams) -> None:
    """A mask is the same as minus infinity in the logits, and the logits stay as they were."""
    rng = np.random.default_rng(vocab_size)
    logits = normal_rows(40, vocab_size)
    allowed = rng.random((40, vocab_size)) < 0.3
    allowed[:, rng.integers(vocab_size)] = True
    masked, plain = make_row(params, vocab_size, seed=5), make_row(params, vocab_size, seed=5)
    for row, bits in zip(logits, allowed, strict=True):
        step = row[None].copy()
        excluded = np.where(bits, row, -np.inf)[None].astype(np.float32)
        mask = packed(bits)
        assert masked.distribution(step[0], mask) == plain.distribution(excluded[0])
        assert sample(step, [masked], [mask]) == sample(excluded, [plain])
        assert step.tobytes() == row.tobytes()


def test_masks_leave_logprobs_and_other_rows_alone() -> None:
    """Log-probabilities are the model's own; a row without a mask knows nothing of the others."""
    logits = normal_rows(3, 100)
    params = SamplingParams(temperature=0, logprobs=3)
    free = sample(logits.copy(), [make_row(params, 100) for _ in range(3)])
    allowed = np.zeros(100, bool)
    allowed[7] = True
    mixed = sample(
        logits.copy(), [make_row(params, 100) for _ in range(3)], [None, packed(allowed), None]
    )
    assert (mixed[0], mixed[2]) == (free[0], free[2])
    assert mixed[1].token_id == 7
    assert mixed[1].top_logprobs == free[1].top_logprobs
    log_total = np.log(np.exp(logits[1].astype(np.float64)).sum())
    assert mixed[1].logprob == pytest.approx(logits[1, 7] - log_total, abs=1e-5)


def test_a_mask_that_leaves_nothing_is_an_error_of_its_row() -> None:
    """Nothing is accepted, and the error says that it was the constraint."""
    rows = [make_row(SamplingParams(), 40) for _ in range(2)]
    empty = np.zeros(2, np.uint32)
    failed, fine = sample(normal_rows(2, 40), rows, [empty, None])
    assert (failed.token_id, failed.error) == (-2, "constraint")
    assert fine.error is None
    assert [row.num_accepted for row in rows] == [0, 1]
    assert rows[0].distribution(normal_rows(1, 40)[0], empty) == {}


@pytest.mark.parametrize(
    "masks",
    [
        [np.zeros(1, np.uint32)],
        [np.zeros(2, np.int64)],
        [np.zeros((1, 2), np.uint32)],
        [np.zeros(4, np.uint32)[::2]],
        ["mask"],
        [None, None],
    ],
)
def test_sample_refuses_masks_of_another_shape(masks: list[Any]) -> None:
    """Too short, of another type or strided: an error, not a read past the end."""
    with pytest.raises((TypeError, ValueError)):
        sample(normal_rows(1, 40), [make_row(SamplingParams(), 40)], masks)
