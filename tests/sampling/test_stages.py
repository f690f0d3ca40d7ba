"""quintet.sampling.stages: which parameters go together, and which orders there are."""

from __future__ import annotations

from typing import Any

import pytest

from quintet.errors import RequestError
from quintet.sampling import STAGES, SamplingParams

TRUNCATION: dict[str, Any] = {
    "top_n_sigma": 1.0,
    "top_k": 40,
    "typical_p": 0.9,
    "top_p": 0.9,
    "min_p": 0.1,
    "xtc_probability": 0.5,
    "dynatemp_range": 0.5,
}


@pytest.mark.parametrize("name", TRUNCATION)
@pytest.mark.parametrize("version", [1, 2])
def test_combinations_mirostat_stands_alone(name: str, version: int) -> None:
    """What Mirostat replaces is refused beside it, by name and with the reason."""
    with pytest.raises(RequestError, match="mirostat, which truncates in its place") as caught:
        SamplingParams(mirostat=version, **{name: TRUNCATION[name]})
    assert caught.value.parameter == name
    assert SamplingParams(mirostat=0, **{name: TRUNCATION[name]})
    assert SamplingParams(mirostat=version, repetition_penalty=1.1, dry_multiplier=0.8)


@pytest.mark.parametrize("name", ["typical_p", "xtc_probability", "dynatemp_range", "mirostat"])
def test_combinations_temperature_zero_draws_nothing(name: str) -> None:
    """What only changes a draw is refused where there is none."""
    with pytest.raises(RequestError, match="a temperature above 0") as caught:
        SamplingParams(temperature=0, **{name: {**TRUNCATION, "mirostat": 1}[name]})
    assert caught.value.parameter == name


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        ("penalties", {"repetition_penalty": 1.1}),
        ("penalties", {"presence_penalty": 0.1}),
        ("penalties", {"frequency_penalty": -0.1}),
        ("dry", {"dry_multiplier": 0.8}),
        ("temperature", {"temperature": 0.7}),
        ("temperature", {"temperature": 0.0}),
        ("temperature", {"dynatemp_range": 0.1}),
        ("top_n_sigma", {"top_n_sigma": 1.0}),
        ("top_k", {"top_k": 40}),
        ("typical_p", {"typical_p": 0.9}),
        ("top_p", {"top_p": 0.9}),
        ("min_p", {"min_p": 0.1}),
        ("xtc", {"xtc_probability": 0.5}),
    ],
)
def test_order_has_every_stage_that_is_set(stage: str, values: dict[str, float]) -> None:
    """A stage left out of the order cannot be set: its parameter would not act."""
    rest = [name for name in STAGES if name != stage]
    assert SamplingParams(sampler_order=rest).sampler_order == tuple(rest)
    with pytest.raises(RequestError, match=f"expected {stage} in it") as caught:
        SamplingParams(sampler_order=rest, **values)  # type: ignore[arg-type]
    assert caught.value.parameter == "sampler_order"
    assert SamplingParams(sampler_order=STAGES, **values)  # type: ignore[arg-type]


def test_order_penalties_and_dry_may_swap() -> None:
    """The two stages that change logits come first, in either order; top_k -1 is off."""
    order = ("dry", "penalties", "min_p", "temperature")
    assert SamplingParams(sampler_order=order, top_k=-1).sampler_order == order
    assert SamplingParams(sampler_order=[]).sampler_order == ()
