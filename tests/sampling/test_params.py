"""quintet.sampling.params and checks: every parameter is checked, and refused by name."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.errors import RequestError
from quintet.sampling import STAGES, SamplingParams

NAN, INF = math.nan, math.inf
HUGE = 10**400
WRONG_NUMBERS: list[Any] = [True, False, "1", b"1", [1], {}, 1j, np.bool_(True), object()]
FLOAT_RANGES = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "typical_p": (0.0, 1.0),
    "top_n_sigma": (0.0, 100.0),
    "dynatemp_range": (0.0, 100.0),
    "dynatemp_exponent": (0.0, 100.0),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 0.5),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 100.0),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 1.0),
}
INT_RANGES = {
    "max_tokens": (1, 2**31 - 1),
    "top_k": (-1, 2**31 - 1),
    "seed": (-(2**63), 2**64 - 1),
    "logprobs": (0, 20),
    "min_tokens": (0, 2**31 - 1),
    "penalty_last_n": (-1, 2**31 - 1),
    "dry_allowed_length": (1, 2**31 - 1),
    "dry_penalty_last_n": (-1, 2**31 - 1),
    "mirostat": (0, 2),
    "n": (1, 16),
    "prompt_logprobs": (0, 20),
}
REQUIRED_INTS = ("top_k", "min_tokens", "penalty_last_n", "dry_allowed_length", "mirostat", "n")


def refused() -> list[tuple[str, Any]]:
    """Every parameter with values it must refuse."""
    cases: list[tuple[str, Any]] = []
    for name, (low, high) in FLOAT_RANGES.items():
        outside = [np.nextafter(low, -INF), np.nextafter(high, INF), NAN, INF, -INF, HUGE, -HUGE]
        cases += [(name, value) for value in [*outside, *WRONG_NUMBERS, None, np.float32(NAN)]]
    for name, (low, high) in INT_RANGES.items():
        outside = [low - 1, high + 1, HUGE, -HUGE, 1.0, 0.5, NAN, INF]
        cases += [(name, value) for value in [*outside, *WRONG_NUMBERS]]
    cases += [(name, None) for name in (*REQUIRED_INTS, "dry_penalty_last_n")]
    cases += [
        (name, value)
        for name in ("ignore_eos", "include_stop_str_in_output", "echo")
        for value in (0, 1, None, "true", "", np.bool_(True), NAN)
    ]
    cases += [
        ("stop", value)
        for value in (
            "",
            [""],
            ["fine", ""],
            "x" * 257,
            "é" * 129,
            ["x"] * 17,
            b"stop",
            [b"stop"],
            None,
            [None],
            5,
            [5],
            {"a": 1},
            {"a"},
            "half \ud800",
            ["a", ["b"]],
        )
    ]
    cases += [
        ("dry_sequence_breakers", value)
        for value in ("", [""], "x" * 41, "é" * 21, ["x"] * 17, b"x", [b"x"], None, [5], {"a"})
    ]
    cases += [
        ("logits_processors", value)
        for value in ("abs", b"abs", abs, None, 5, {abs}, [abs, 5], ["abs"], [abs] * 17)
    ]
    cases += [
        ("sampler_order", value)
        for value in (
            "top_k",
            b"top_k",
            None,
            5,
            {"top_k"},
            ["top_k", None],
            ["top_k", "topk"],
            ["top_k", "top_k"],
            [["top_k"]],
            ["temperature"] * 10,
            ["temperature", "penalties"],
            ["penalties", "top_k", "dry"],
        )
    ]
    cases += [
        ("stop_token_ids", value)
        for value in (
            [-1],
            [2**31],
            [HUGE],
            [True],
            [1.0],
            [NAN],
            ["1"],
            [None],
            "12",
            b"12",
            5,
            None,
            {1, 2},
            [0] * 1025,
        )
    ]
    cases += [
        ("logit_bias", value)
        for value in (
            {1: NAN},
            {1: INF},
            {1: -INF},
            {1: 100.5},
            {1: -100.5},
            {1: HUGE},
            {1: True},
            {1: "5"},
            {1: None},
            {-1: 1.0},
            {2**31: 1.0},
            {True: 1.0},
            {"1": 1.0},
            {1.0: 1.0},
            {None: 1.0},
            [(1, 2.0)],
            "1",
            5,
            dict.fromkeys(range(1025), 1.0),
        )
    ]
    cases += [("constraint", value) for value in ({"type": "json_object"}, "a+", 5, True)]
    return cases


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(refused())],
)
def test_params_refuse_by_name(name: str, value: Any) -> None:
    """A wrong type, NaN, an infinity or a value out of range is refused, naming the parameter."""
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.parameter == name
    assert str(caught.value).startswith(f"{name}: expected ")
    assert len(str(caught.value)) < 200


def test_params_refusals_cover_every_parameter() -> None:
    """No parameter is without a test of what it refuses."""
    assert {name for name, _ in refused()} == {f.name for f in dataclasses.fields(SamplingParams)}


@pytest.mark.parametrize("name", [*FLOAT_RANGES, *INT_RANGES])
def test_params_accept_the_ends_of_their_range(name: str) -> None:
    """Both ends of each range are values like any other."""
    for value in {**FLOAT_RANGES, **INT_RANGES}[name]:
        extra = {"max_tokens": None} if name == "min_tokens" else {}
        assert getattr(SamplingParams(**{name: value, **extra}), name) == value


def test_params_defaults() -> None:
    """Left alone, sampling is from the model's own distribution, with 256 tokens at most."""
    params = SamplingParams()
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p) == (256, 1.0, 0, 1.0)
    assert params.min_p == 0.0
    assert params.repetition_penalty == 1.0
    assert params.presence_penalty == params.frequency_penalty == 0.0
    assert params.seed is params.logit_bias is params.logprobs is None
    assert params.stop == params.stop_token_ids == ()
    assert params.min_tokens == 0
    assert not params.ignore_eos
    assert not params.include_stop_str_in_output
    assert params.typical_p == 1.0
    assert params.top_n_sigma == params.dynatemp_range == params.xtc_probability == 0.0
    assert params.dry_multiplier == params.mirostat == 0
    assert params.sampler_order == STAGES


def test_params_max_tokens_none_is_without_limit() -> None:
    """None generates until the context is full, and any min_tokens goes with it."""
    assert SamplingParams(max_tokens=None, min_tokens=10_000).max_tokens is None


def test_params_min_tokens_above_max_tokens() -> None:
    """More tokens at least than at most cannot be served."""
    with pytest.raises(RequestError, match="at most max_tokens, 5, found 6") as caught:
        SamplingParams(max_tokens=5, min_tokens=6)
    assert caught.value.parameter == "min_tokens"
    assert SamplingParams(max_tokens=5, min_tokens=5).min_tokens == 5


def test_params_become_plain_values() -> None:
    """NumPy numbers, lists and a single stop string are taken, and kept as plain Python values."""
    params = SamplingParams(
        temperature=np.float32(0.5),
        top_k=np.int64(40),
        top_p=1,
        stop="end",
        stop_token_ids=[np.int32(3), 4],
        logit_bias={np.int64(7): 1},
    )
    assert type(params.temperature) is float
    assert type(params.top_k) is int
    assert type(params.top_p) is float
    assert params.stop == ("end",)
    assert params.stop_token_ids == (3, 4)
    assert params.logit_bias == {7: 1.0}
    assert isinstance(params.logit_bias, Mapping)
    assert [type(value) for pair in params.logit_bias.items() for value in pair] == [int, float]
    assert SamplingParams(stop=["a", "é" * 128]).stop_strings == ("a", "é" * 128)


def test_params_keep_no_hold_on_their_arguments() -> None:
    """Changing a list or map after the request was made does not change the request."""
    bias, stop, ids = {1: 1.0}, ["a"], [1]
    params = SamplingParams(logit_bias=bias, stop=stop, stop_token_ids=ids)
    bias[2], _, _ = 2.0, stop.append("b"), ids.append(2)
    assert (params.logit_bias, params.stop, params.stop_token_ids) == ({1: 1.0}, ("a",), (1,))


def test_params_are_values() -> None:
    """They cannot be changed; they compare, hash, copy and travel to another process."""
    params = SamplingParams(seed=3, logit_bias={1: 2.0}, stop=["a"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.seed = 4  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(params))
    assert again == params == dataclasses.replace(params)
    assert hash(again) == hash(params)
    assert dataclasses.replace(params, seed=5) != params


def test_params_greedy() -> None:
    """greedy() takes the most probable token."""
    assert SamplingParams.greedy(max_tokens=7) == SamplingParams(max_tokens=7, temperature=0)


@pytest.mark.parametrize(
    ("name", "value"), [("logit_bias", {9: 1.0, 10: 1.0}), ("stop_token_ids", [10])]
)
def test_params_token_ids_outside_the_vocabulary(name: str, value: Any) -> None:
    """A token the model does not have is refused before it reaches the sampler."""
    params = SamplingParams(**{name: value})
    params.check_vocab(11)
    with pytest.raises(RequestError, match="expected token ids below 10, found 10") as caught:
        params.check_vocab(10)
    assert caught.value.parameter == name


@given(
    name=st.sampled_from([f.name for f in dataclasses.fields(SamplingParams)]),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=4)
        | st.binary(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.integers() | st.text(max_size=2), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)
def test_params_any_value_is_taken_or_refused(name: str, value: Any) -> None:
    """Whatever a client sends is taken or is a RequestError naming the parameter, nothing else."""
    found = None
    try:
        params = SamplingParams(**{name: value})
    except RequestError as error:
        found = error.parameter
    else:
        assert dataclasses.replace(params) == params
    assert found in (None, name)
