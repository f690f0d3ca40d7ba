"""The stages that judge a row as a whole, and the order of stages, against plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sampling_oracle import (
    assert_same_distribution,
    distribution,
    make_row,
    processed_logits,
    uniform,
)

from quintet.sampling import STAGES, SamplingParams, sample

SIZES = [1, 2, 7, 127, 128, 129, 1000, 151_936]
LLAMA_ORDER = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
CASES: list[dict[str, Any]] = [
    {"top_n_sigma": 1.0},
    {"top_n_sigma": 0.03, "temperature": 2.0},
    {"top_n_sigma": 90.0},
    {"typical_p": 0.2},
    {"typical_p": 0.95},
    {"typical_p": 0.0},
    {"dynatemp_range": 0.5},
    {"temperature": 0.3, "dynatemp_range": 0.9, "dynatemp_exponent": 2.5},
    {"dynatemp_range": 1.0, "dynatemp_exponent": 0.0},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"xtc_probability": 1.0, "xtc_threshold": 0.5},
    {"typical_p": 0.8, "top_p": 0.9, "min_p": 0.05},
    {"xtc_probability": 1.0, "xtc_threshold": 0.001, "top_k": 20, "min_p": 0.01},
    {"top_k": 50, "top_p": 0.9, "temperature": 1.7, "sampler_order": LLAMA_ORDER},
    {
        "top_n_sigma": 2.0,
        "typical_p": 0.9,
        "top_p": 0.8,
        "xtc_probability": 1.0,
        "xtc_threshold": 0.02,
        "temperature": 0.6,
        "dynatemp_range": 0.4,
        "sampler_order": LLAMA_ORDER,
    },
    {"top_p": 0.9, "top_k": 5, "sampler_order": ("top_p", "top_k")},
    {
        "xtc_probability": 1.0,
        "xtc_threshold": 0.01,
        "min_p": 0.2,
        "typical_p": 0.9,
        "temperature": 0.5,
        "sampler_order": ("xtc", "min_p", "temperature", "typical_p"),
    },
]


def normal_logits(vocab_size: int, scale: float = 3.0, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, vocab_size).astype(np.float32)


@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize("values", CASES, ids=lambda values: "-".join(values))
def test_stages_agree_with_numpy(vocab_size: int, values: dict[str, Any]) -> None:
    """Each stage, alone and in unusual orders, keeps the tokens that its definition keeps."""
    params = SamplingParams(**values)
    for seed, scale in enumerate((0.5, 3.0, 12.0)):
        logits = normal_logits(vocab_size, scale, seed)
        found = make_row(params, vocab_size).distribution(logits)
        wanted = distribution(logits.astype(np.float64), params)
        assert_same_distribution(found, wanted)


@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize("mass", [0.05, 0.5, 0.9])
def test_typical_agrees_with_transformers(vocab_size: int, mass: float) -> None:
    """typical_p keeps what transformers' warper keeps."""
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits = normal_logits(vocab_size)
    scores = torch.tensor(logits, dtype=torch.float64)[None]
    kept = torch.softmax(processors.TypicalLogitsWarper(mass)(None, scores), dim=-1)[0].numpy()
    wanted = {int(i): float(kept[i]) for i in np.flatnonzero(kept > 0)}
    found = make_row(SamplingParams(typical_p=mass), vocab_size).distribution(logits)
    assert_same_distribution(found, wanted)


def test_typical_may_drop_the_most_probable() -> None:
    """A token likelier than typical goes; min_p then measures against what is left."""
    logits = np.log(np.array([0.4] + [0.06] * 10, np.float32))
    found = make_row(SamplingParams(typical_p=0.5), 11).distribution(logits)
    assert list(found) == list(range(1, 10))
    found = make_row(SamplingParams(typical_p=0.5, min_p=1.0), 11).distribution(logits)
    assert list(found) == list(range(1, 10))


def test_top_n_sigma_does_not_depend_on_the_temperature() -> None:
    """The tokens kept are the same at any temperature and on either side of it in the order."""
    logits = normal_logits(1000)
    kept = {
        tuple(make_row(params, 1000).distribution(logits))
        for temperature in (0.5, 1.0, 3.0)
        for params in (
            SamplingParams(top_n_sigma=1.5, temperature=temperature),
            SamplingParams(
                top_n_sigma=1.5,
                temperature=temperature,
                sampler_order=("temperature", "top_n_sigma"),
            ),
        )
    }
    assert len(kept) == 1


def test_xtc_keeps_the_least_probable_of_the_top_choices() -> None:
    """Of the tokens above the threshold the last one stays, of equal ones the one sorted last."""
    logits = np.log(np.array([0.2, 0.3, 0.2, 0.05, 0.25], np.float32))
    params = SamplingParams(xtc_probability=1.0, xtc_threshold=0.1)
    assert make_row(params, 5).distribution(logits) == pytest.approx({2: 0.8, 3: 0.2})
    one = SamplingParams(xtc_probability=1.0, xtc_threshold=0.28)
    assert list(make_row(one, 5).distribution(logits)) == [0, 1, 2, 3, 4]


def test_xtc_acts_by_the_documented_generator() -> None:
    """Whether it acts at a position is Philox's number in a stream of its own; 0.0 is never."""
    logits = np.log(np.array([[0.6, 0.3, 0.1]], np.float32))
    params = SamplingParams(xtc_probability=0.4, xtc_threshold=0.2)
    row = make_row(params, 3, seed=11)
    acted = []
    for _ in range(300):
        acted.append(0 not in row.distribution(logits[0]))
        sample(logits, [row])
    assert acted == [uniform(11, position, stream=1) < 0.4 for position in range(300)]
    assert 80 < sum(acted) < 160
    assert uniform(11, 0, stream=1) != uniform(11, 0)


def test_xtc_leaves_the_draw_where_it_was() -> None:
    """A seed's tokens are the same with XTC as without wherever it does not act."""
    logits = np.repeat(np.log(np.array([[0.6, 0.3, 0.1]], np.float32)), 200, axis=0)
    plain = make_row(SamplingParams(), 3, seed=4)
    xtc = make_row(SamplingParams(xtc_probability=0.3, xtc_threshold=0.2), 3, seed=4)
    for position, row in enumerate(logits):
        tokens = sample(np.stack([row, row]), [plain, xtc])
        if uniform(4, position, stream=1) >= 0.3:
            assert tokens[0].token_id == tokens[1].token_id
        else:
            assert tokens[1].token_id != 0


def test_dynamic_temperature_spans_its_range() -> None:
    """A certain row gets the lowest temperature, a uniform one the highest."""
    params = SamplingParams(temperature=1.0, dynatemp_range=0.5)
    uniform_row = np.zeros(8, np.float32)
    assert make_row(params, 8).distribution(uniform_row) == pytest.approx(
        dict.fromkeys(range(8), 0.125)
    )
    certain = np.array([0.0, -30.0], np.float32)
    found = make_row(params, 2).distribution(certain)
    assert math.log(found[0] / found[1]) == pytest.approx(30 / 0.5, rel=1e-4)
    coldest = SamplingParams(temperature=0.5, dynatemp_range=0.5)
    assert make_row(coldest, 2).distribution(np.array([0.0, -200.0], np.float32)) == {0: 1.0}


def test_order_decides_what_a_stage_sees() -> None:
    """top_p before the temperature takes its share of the model's own probabilities."""
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    values: dict[str, Any] = {"temperature": 4.0, "top_p": 0.78}
    assert list(make_row(SamplingParams(**values), 4).distribution(logits)) == [0, 1, 2]
    params = SamplingParams(**values, sampler_order=LLAMA_ORDER)
    found = make_row(params, 4).distribution(logits)
    assert list(found) == [0, 1]
    assert found[0] / found[1] == pytest.approx((0.5 / 0.3) ** 0.25, rel=1e-5)


@st.composite
def situations(draw: st.DrawFn) -> tuple[NDArray[np.float32], SamplingParams]:
    """Logits with ties and exclusions, some stages set, any order of them."""
    vocab_size = draw(st.sampled_from([1, 2, 7, 40, 130, 300]))
    some = st.floats(-30, 30, width=16) | st.integers(-4, 4) | st.just(-np.inf)
    logits = draw(arrays(np.float32, vocab_size, elements=some))
    logits[draw(st.integers(0, vocab_size - 1))] = 2.5
    params = SamplingParams(
        temperature=draw(st.sampled_from([0.31, 1.0, 2.7])),
        dynatemp_range=draw(st.sampled_from([0.0, 0.23])),
        top_n_sigma=draw(st.sampled_from([0.0, 0.71, 2.3])),
        top_k=draw(st.sampled_from([0, 3, 60])),
        typical_p=draw(st.sampled_from([1.0, 0.77313])),
        top_p=draw(st.sampled_from([1.0, 0.91371])),
        min_p=draw(st.sampled_from([0.0, 0.03137])),
        xtc_probability=draw(st.sampled_from([0.0, 1.0])),
        xtc_threshold=draw(st.sampled_from([0.0713, 0.2391])),
        sampler_order=draw(st.permutations(STAGES[2:])),
    )
    return logits, params


@settings(max_examples=300)
@given(situation=situations())
def test_stages_in_any_order_leave_a_choice(
    situation: tuple[NDArray[np.float32], SamplingParams],
) -> None:
    """Any stages in any order leave allowed tokens, with probabilities that add up to 1."""
    logits, params = situation
    before = logits.copy()
    row = make_row(params, logits.size)
    found = row.distribution(logits)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-6)
    assert all(before[i] > -np.inf and p > 0 for i, p in found.items())
    assert list(found) == sorted(found)
    assert sample(logits[None], [row])[0].token_id in found
    np.testing.assert_array_equal(logits, before)
    edges = len({float(x) for x in logits}) < logits.size  # equal logits: rounding breaks ties
    if not edges:
        wanted = distribution(processed_logits(logits, params), params)
        assert_same_distribution(
            {i: p for i, p in found.items() if p > 1e-9},
            {i: p for i, p in wanted.items() if p > 1e-9},
            tolerance=1e-4,
        )
