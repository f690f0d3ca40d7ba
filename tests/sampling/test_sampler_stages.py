"""Each stage of the sampler against transformers' processors and against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sampling_oracle import (
    assert_same_distribution,
    distribution,
    make_row,
    processed_logits,
)

from quintet.sampling import SamplingParams, sample

SIZES = [1, 2, 7, 127, 128, 129, 1000, 151_936]


def normal_logits(vocab_size: int, scale: float = 3.0, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, vocab_size).astype(np.float32)


def transformers_distribution(
    logits: NDArray[np.float32], warpers: list[Any], input_ids: list[int]
) -> dict[int, float]:
    """What transformers' own processors leave, in float64."""
    torch = pytest.importorskip("torch")
    scores = torch.tensor(logits, dtype=torch.float64)[None]
    for warper in warpers:
        scores = warper(torch.tensor([input_ids]), scores)
    probabilities = torch.softmax(scores, dim=-1)[0].numpy()
    return {int(i): float(probabilities[i]) for i in np.flatnonzero(probabilities > 0)}


@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0.7},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 2000},
        {"top_p": 0.9},
        {"top_p": 0.03},
        {"top_p": 0.9999},
        {"min_p": 0.07},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"temperature": 1.4, "top_k": 50, "top_p": 0.83, "min_p": 0.02, "repetition_penalty": 1.1},
    ],
    ids=lambda values: "-".join(values),
)
def test_stages_agree_with_transformers(vocab_size: int, values: dict[str, float]) -> None:
    """The tokens kept and their probabilities are those of transformers' processors."""
    processors = pytest.importorskip("transformers.generation.logits_process")
    prompt = [i % vocab_size for i in (3, 5, 5, 100, 70_000)]
    warpers = []
    if "repetition_penalty" in values:
        warpers.append(processors.RepetitionPenaltyLogitsProcessor(values["repetition_penalty"]))
    if "temperature" in values:
        warpers.append(processors.TemperatureLogitsWarper(values["temperature"]))
    if "top_k" in values:
        warpers.append(processors.TopKLogitsWarper(values["top_k"]))
    if "top_p" in values:
        warpers.append(processors.TopPLogitsWarper(values["top_p"]))
    if "min_p" in values:
        warpers.append(processors.MinPLogitsWarper(values["min_p"]))
    logits = normal_logits(vocab_size)
    wanted = transformers_distribution(logits, warpers, prompt)
    found = make_row(SamplingParams(**values), vocab_size, prompt=prompt).distribution(logits)  # type: ignore[arg-type]
    assert_same_distribution(found, wanted)
    edge = sum(wanted.get(i, 0.0) + found.get(i, 0.0) for i in found.keys() ^ wanted.keys())
    assert edge < 2e-6, "more than a token at the very edge differs"


@pytest.mark.parametrize("spread", [0.01, 1.0, 10.0, 40.0])
def test_stages_top_p_of_flat_and_peaked_rows(spread: float) -> None:
    """top_p keeps the fewest tokens that reach it, from nearly uniform to nearly certain rows."""
    logits = normal_logits(151_936, spread)
    for top_p in (0.0, 0.5, 0.95, 0.99999):
        params = SamplingParams(top_p=top_p)
        found = make_row(params, logits.size).distribution(logits)
        assert_same_distribution(found, distribution(logits.astype(np.float64), params))
        everything = np.exp(logits - logits.max(), dtype=np.float64)
        mass = everything[list(found)].sum() / everything.sum()
        assert mass >= top_p - 1e-6
        assert mass - everything[list(found)].min() / everything.sum() < top_p + 1e-6


@pytest.mark.parametrize("vocab_size", [5, 128, 1000, 151_936])
@pytest.mark.parametrize("top_k", [1, 3, 200])
def test_stages_top_k_ties_go_to_the_lower_ids(vocab_size: int, top_k: int) -> None:
    """top_k keeps exactly k tokens; among equal logits those with the lower ids."""
    found = make_row(SamplingParams(top_k=top_k), vocab_size).distribution(
        np.zeros(vocab_size, np.float32)
    )
    assert list(found) == list(range(min(top_k, vocab_size)))
    logits = np.zeros(vocab_size, np.float32)
    logits[[vocab_size - 1, vocab_size // 2]] = 1.0
    found = make_row(SamplingParams(top_k=top_k), vocab_size).distribution(logits)
    larger = [vocab_size // 2, vocab_size - 1]
    rest = [i for i in range(vocab_size) if i not in larger]
    wanted = larger[:top_k] + rest[: max(top_k - 2, 0)]
    assert list(found) == sorted(wanted)


def test_stages_top_p_ties_go_to_the_lower_ids() -> None:
    """top_p fills up with the lower ids when weights are equal."""
    found = make_row(SamplingParams(top_p=0.5), 1000).distribution(np.zeros(1000, np.float32))
    assert list(found) == list(range(500))
    found = make_row(SamplingParams(top_p=0.0), 1000).distribution(np.zeros(1000, np.float32))
    assert found == {0: 1.0}


def test_stages_min_p_one_keeps_the_most_probable() -> None:
    """min_p = 1 keeps the largest logit, and whatever equals it."""
    logits = np.array([1, 3, 2, 3, 0], np.float32)
    assert make_row(SamplingParams(min_p=1.0), 5).distribution(logits) == {1: 0.5, 3: 0.5}


def test_stages_act_in_order() -> None:
    """top_p is a share of what top_k left; min_p sees the temperature."""
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    found = make_row(SamplingParams(top_k=2, top_p=0.56), 4).distribution(logits)
    assert list(found) == [0]  # 0.4 / 0.7 reaches it; 0.4 of the whole row would not
    assert list(make_row(SamplingParams(min_p=0.6), 4).distribution(logits)) == [0, 1]
    hot = SamplingParams(min_p=0.6, temperature=3.0)
    assert list(make_row(hot, 4).distribution(logits)) == [0, 1, 2, 3]


def test_stages_penalties_count_where_they_should() -> None:
    """repetition sees prompt and output; presence and frequency see the output only."""
    logits = np.array([2.0, 2.0, 2.0, -2.0, 2.0], np.float32)
    prompt, output = [0, 0, 3], [1, 1, 1, 2]

    def log_ratios(**values: float) -> list[float]:
        row = make_row(SamplingParams(**values), 5, prompt=prompt, output=output)  # type: ignore[arg-type]
        found = row.distribution(logits)
        return [float(np.log(found[i] / found[4])) for i in range(4)]

    assert log_ratios(repetition_penalty=2.0) == pytest.approx([-1, -1, -1, -6], abs=1e-5)
    assert log_ratios(presence_penalty=0.5) == pytest.approx([0, -0.5, -0.5, -4], abs=1e-5)
    assert log_ratios(frequency_penalty=0.5) == pytest.approx([0, -1.5, -0.5, -4], abs=1e-5)
    assert log_ratios(presence_penalty=-1, frequency_penalty=-0.5) == pytest.approx(
        [0, 2.5, 1.5, -4], abs=1e-5
    )
    assert log_ratios(
        repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25
    ) == pytest.approx([-1, -2.25, -1.75, -6], abs=1e-5)


def test_stages_min_tokens_hold_ending_tokens_back() -> None:
    """Before min_tokens neither end of sequence nor stop tokens can come; then they can."""
    logits = np.array([[5.0, 1.0, 4.0, 0.0]], np.float32)
    greedy = {"temperature": 0.0, "min_tokens": 2}
    row = make_row(SamplingParams(stop_token_ids=[2], **greedy), 4, eos=[0])  # type: ignore[arg-type]
    assert [sample(logits, [row])[0].token_id for _ in range(3)] == [1, 1, 0]
    row = make_row(SamplingParams(ignore_eos=True, **greedy), 4, eos=[0])  # type: ignore[arg-type]
    assert sample(logits, [row])[0].token_id == 0


def test_stages_min_tokens_yield_when_nothing_else_is_possible() -> None:
    """If only ending tokens are possible, one is taken rather than none."""
    logits = np.array([[1.0, 2.0, -np.inf]], np.float32)
    row = make_row(SamplingParams(temperature=0, min_tokens=5, logit_bias={0: 3}), 3, eos=[0, 1])
    assert sample(logits, [row])[0].token_id == 0
    row = make_row(SamplingParams(min_tokens=5), 1, eos=[0])
    assert sample(np.zeros((1, 1), np.float32), [row])[0].token_id == 0


def test_stages_bias_acts_before_the_rest() -> None:
    """A bias moves the greedy choice, and does not bring back what the model excludes."""
    logits = np.array([[1.0, 2.0, -np.inf]], np.float32)
    row = make_row(SamplingParams(temperature=0, logit_bias={0: 1.5, 2: 100}), 3)
    assert sample(logits, [row])[0].token_id == 0
    assert make_row(SamplingParams(logit_bias={2: 100}), 3).distribution(logits[0]).keys() == {0, 1}


@st.composite
def situations(draw: st.DrawFn) -> tuple[NDArray[np.float32], SamplingParams, list[list[int]]]:
    """Logits with ties and exclusions, parameters off exact ties of mass, and a history."""
    vocab_size = draw(st.sampled_from([1, 2, 7, 40, 130, 300]))
    some = st.floats(-30, 30, width=16) | st.integers(-4, 4) | st.just(-np.inf)
    logits = draw(arrays(np.float32, vocab_size, elements=some))
    logits[draw(st.integers(0, vocab_size - 1))] = 2.5
    ids = st.lists(st.integers(0, vocab_size - 1), max_size=6)
    params = SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.31, 1.0, 2.7])),
        top_k=draw(st.sampled_from([-1, 0, 1, 3, 60, 1000])),
        top_p=draw(st.sampled_from([1.0, 0.91371, 0.37193, 0.01171])),
        min_p=draw(st.sampled_from([0.0, 0.03137, 0.61173])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.37, 0.71])),
        presence_penalty=draw(st.sampled_from([0.0, 0.61, -1.3])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.43, -0.7])),
        logit_bias=draw(st.dictionaries(st.integers(0, vocab_size - 1), st.integers(-9, 9))),
        min_tokens=draw(st.sampled_from([0, 3])),
        stop_token_ids=draw(ids),
        ignore_eos=draw(st.booleans()),
    )
    return logits, params, [draw(ids), draw(ids), draw(ids)]


@given(situation=situations())
def test_stages_together_agree_with_numpy(
    situation: tuple[NDArray[np.float32], SamplingParams, list[list[int]]],
) -> None:
    """All stages at once give what the definition in NumPy gives, and leave the row as it was."""
    logits, params, (prompt, output, eos) = situation
    row = make_row(params, logits.size, prompt=prompt, output=output, eos=eos)
    before = logits.copy()
    found = row.distribution(logits)
    np.testing.assert_array_equal(logits, before)
    wanted = distribution(processed_logits(logits, params, prompt, output, eos), params)
    # Equal logits may part, and parted ones meet, in the last bit of a penalised float32.
    if params.temperature > 0:
        assert_same_distribution(
            {i: p for i, p in found.items() if p > 1e-9},
            {i: p for i, p in wanted.items() if p > 1e-9},
            tolerance=1e-4,
        )
        assert sum(found.values()) == pytest.approx(1.0, abs=1e-6)
    token = sample(logits[None], [row])[0]
    np.testing.assert_array_equal(logits, before)
    assert token.error is None
    assert token.token_id in found
    assert before[token.token_id] > -np.inf
