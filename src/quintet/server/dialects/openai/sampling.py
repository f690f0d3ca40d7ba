"""Sampling fields of a body to the engine's `SamplingParams`, and how it is served."""

from __future__ import annotations

from typing import Any, Final

from quintet.engine.request import Priority, RequestOptions
from quintet.errors import RequestError
from quintet.sampling.constraint import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.dialects.openai.bodies import RequestBody, SamplerBody
from quintet.server.errors import UnsupportedParameterError

# Fields of the wire, and the engine's names of those that it calls by another.
_SAME_NAME: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "dynatemp_range",
    "dynatemp_exponent",
    "xtc_probability",
    "xtc_threshold",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "min_tokens",
    "ignore_eos",
)
_OTHER_NAME: Final = {
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_last_n",
    "samplers": "sampler_order",
}
_WIRE_NAME: Final = {"penalty_last_n": "repeat_last_n", "sampler_order": "samplers"}
_STAGE: Final = {"typ_p": "typical_p", "typical": "typical_p"}  # llama-server's names
_REFUSED: Final = {
    "allowed_token_ids": "use guided_choice or a grammar",
    "bad_words": "use logit_bias",
    "use_beam_search": "not supported",
    "prompt_logprobs": "use echo with logprobs on /v1/completions",
    "truncate_prompt_tokens": "prompts are never cut",
}


def sampling_params(
    body: SamplerBody,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    constraint: Constraint | None = None,
    **more: Any,
) -> SamplingParams:
    """The engine's parameters; fields the client left out keep its defaults.

    Args:
        body: what the client sent.
        max_tokens: -1, llama-server's "no limit", is None.
        logprobs: see `SamplingParams`.
        constraint: see `SamplingParams`.
        more: further fields of `SamplingParams`.

    Raises:
        RequestError: a value out of the engine's range, by the name the client knows.
        UnsupportedParameterError: fields that cannot be honoured.
    """
    for name, reason in _REFUSED.items():
        if getattr(body, name):
            raise refuse(name, reason)
    values: dict[str, Any] = {
        name: value for name in _SAME_NAME if (value := getattr(body, name)) is not None
    }
    for name, engine_name in _OTHER_NAME.items():
        if (value := getattr(body, name)) is None:
            continue
        if engine_name in values:
            raise RequestError(f"expected it or {engine_name}, found both", parameter=name)
        values[engine_name] = value
    if "sampler_order" in values:
        values["sampler_order"] = [_STAGE.get(stage, stage) for stage in values["sampler_order"]]
    if body.logit_bias is not None:
        values["logit_bias"] = {int(token): bias for token, bias in body.logit_bias.items()}
    try:
        return SamplingParams(
            **values,
            max_tokens=None if max_tokens == -1 else max_tokens,
            logprobs=logprobs,
            constraint=constraint,
            **more,
        )
    except RequestError as error:
        raise _in_wire_names(error, body) from None


def asked_parameters(body: SamplerBody, max_tokens: int | None) -> frozenset[str]:
    """The parameters that the client set itself, by the engine's names."""
    names = {name for name in _SAME_NAME if getattr(body, name) is not None}
    names |= {own for name, own in _OTHER_NAME.items() if getattr(body, name) is not None}
    if max_tokens is not None:
        names.add("max_tokens")
    return frozenset(names)


def request_options(body: RequestBody) -> RequestOptions:
    """How a request is served: vLLM's `priority` (lower goes first, 0 is normal) and `timeout`."""
    options = RequestOptions()
    if body.priority:
        options["priority"] = Priority.HIGH if body.priority < 0 else Priority.LOW
    if body.timeout is not None:
        if body.timeout <= 0:
            raise RequestError("expected a positive number of seconds", parameter="timeout")
        options["timeout_s"] = body.timeout
    return options


def refuse(parameter: str, reason: str) -> UnsupportedParameterError:
    """The refusal of a field that would otherwise be ignored in silence."""
    return UnsupportedParameterError(reason, parameter=parameter)


def _in_wire_names(error: RequestError, body: SamplerBody) -> RequestError:
    name = error.parameter
    wire_name = _WIRE_NAME.get(name or "", name)
    if name == "repetition_penalty" and body.repeat_penalty is not None:
        wire_name = "repeat_penalty"
    if wire_name == name:
        return error
    return RequestError(str(error).removeprefix(f"{name}: "), parameter=wire_name)
