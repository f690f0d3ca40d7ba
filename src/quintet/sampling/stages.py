"""The stages of the sampler: their names, which of them take part, and what goes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from quintet.errors import RequestError

if TYPE_CHECKING:
    from quintet.sampling.params import SamplingParams

STAGES: Final = (
    "penalties",
    "dry",
    "top_n_sigma",
    "temperature",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
)
_STAGES_OF_WHOLE_ROWS = ("penalties", "dry")

# A parameter that sets a stage to work, and the value that leaves it out.
_OFF = {
    "repetition_penalty": ("penalties", 1.0),
    "presence_penalty": ("penalties", 0.0),
    "frequency_penalty": ("penalties", 0.0),
    "dry_multiplier": ("dry", 0.0),
    "top_n_sigma": ("top_n_sigma", 0.0),
    "temperature": ("temperature", 1.0),
    "dynatemp_range": ("temperature", 0.0),
    "typical_p": ("typical_p", 1.0),
    "top_p": ("top_p", 1.0),
    "min_p": ("min_p", 0.0),
    "xtc_probability": ("xtc", 0.0),
}
_REPLACED_BY_MIROSTAT = (
    "top_n_sigma",
    "dynatemp_range",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc_probability",
)
_POINTLESS_WITHOUT_A_DRAW = ("typical_p", "xtc_probability", "dynatemp_range", "mirostat")


def checked_order(value: object) -> tuple[str, ...]:
    """Names of stages, each at most once, as a tuple.

    Raises:
        RequestError: naming sampler_order.
    """
    name = "sampler_order"
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise RequestError(
            f"expected a list of stages, found {type(value).__name__}", parameter=name
        )
    if len(value) > len(STAGES):
        raise RequestError(
            f"expected at most {len(STAGES)} stages, found {len(value)}", parameter=name
        )
    for stage in value:
        if not isinstance(stage, str) or stage not in STAGES:
            raise RequestError(f"expected stages out of {', '.join(STAGES)}", parameter=name)
    if len(set(value)) < len(value):
        raise RequestError("expected each stage once, found one repeated", parameter=name)
    is_whole = [stage in _STAGES_OF_WHOLE_ROWS for stage in value]
    if is_whole != sorted(is_whole, reverse=True):
        raise RequestError(
            "expected penalties and dry before the rest: they change logits of the whole row",
            parameter=name,
        )
    return tuple(value)


def check_combinations(params: SamplingParams) -> None:
    """Refuse parameters of which one would keep another from acting.

    Raises:
        RequestError: naming the parameter that could not act, or sampler_order.
    """
    if params.mirostat != 0:
        for name in _REPLACED_BY_MIROSTAT:
            if _is_set(params, name):
                raise RequestError(
                    "expected it off with mirostat, which truncates in its place", parameter=name
                )
    if params.temperature == 0:
        for name in _POINTLESS_WITHOUT_A_DRAW:
            if _is_set(params, name):
                raise RequestError(
                    "expected a temperature above 0 with it: at 0 nothing is drawn", parameter=name
                )
    for name, (stage, _) in {**_OFF, "top_k": ("top_k", 0)}.items():
        if stage not in params.sampler_order and _is_set(params, name):
            raise RequestError(
                f"expected {stage} in it, since {name} is set", parameter="sampler_order"
            )


def _is_set(params: SamplingParams, name: str) -> bool:
    if name == "top_k":
        return params.top_k > 0
    if name == "mirostat":
        return params.mirostat != 0
    return bool(getattr(params, name) != _OFF[name][1])
