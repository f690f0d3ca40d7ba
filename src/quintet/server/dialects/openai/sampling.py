"""Sampling fields of a body to the engine's `SamplingParams`."""

from __future__ import annotations

from typing import Any

from quintet.sampling.constraint import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.dialects.openai.bodies import SamplingBody
from quintet.server.errors import UnsupportedParameterError

_SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
)


def sampling_params(
    body: SamplingBody,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    constraint: Constraint | None = None,
) -> list[SamplingParams]:
    """One `SamplingParams` per answer asked for with `n`.

    Fields the client left out keep the engine's defaults.  The seed of answer i is
    the client's plus i, so that the answers differ and can be repeated.

    Raises:
        RequestError: a value out of the engine's range.
    """
    values: dict[str, Any] = {
        name: value for name in _SAME_NAME if (value := getattr(body, name)) is not None
    }
    values["max_tokens"] = None if max_tokens == -1 else max_tokens  # -1: llama-server's "no limit"
    values["logprobs"] = logprobs
    values["constraint"] = constraint
    if body.stop is not None:
        values["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    if body.stop_token_ids is not None:
        values["stop_token_ids"] = body.stop_token_ids
    if body.logit_bias is not None:
        values["logit_bias"] = {int(token): bias for token, bias in body.logit_bias.items()}
    return [
        SamplingParams(**values, seed=None if body.seed is None else (body.seed + index) % 2**64)
        for index in range(body.n or 1)
    ]


def refuse(parameter: str, reason: str) -> UnsupportedParameterError:
    """The refusal of a field that would otherwise be ignored in silence."""
    return UnsupportedParameterError(reason, parameter=parameter)
