"""Sampling fields of a body to the engine's `SamplingParams`, and back for the reply."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from quintet.engine.request import RequestOptions
from quintet.errors import RequestError
from quintet.sampling.constraint import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.dialects.llamacpp.bodies import GenerationBody

EncodeText = Callable[[str], "list[int]"]

# llama-server's names of the stages; "infill" is a sampler we do not have, and leave out.
_STAGES = {
    "penalties": "penalties",
    "dry": "dry",
    "top_n_sigma": "top_n_sigma",
    "temperature": "temperature",
    "top_k": "top_k",
    "typ_p": "typical_p",
    "typical_p": "typical_p",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc": "xtc",
}
DEFAULT_SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
_ENGINE_NAME = {
    "n_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_last_n",
    "samplers": "sampler_order",
}
_FORBIDDEN = -100.0  # what logit_bias: [[id, false]] comes to


def sampling_params(body: GenerationBody, encode: EncodeText) -> SamplingParams:
    """What the body asks of the sampler.

    A parameter that another one keeps from acting is dropped, as llama-server drops it.

    Args:
        encode: text to token ids, for biases that name a text.

    Raises:
        RequestError: a value out of range.
    """
    values: dict[str, Any] = {
        # 0 asks for the prompt to be computed only: one token is, and is not shown.
        "max_tokens": None if body.n_predict == -1 else max(1, body.n_predict),
        "temperature": max(0.0, body.temperature),
        "repetition_penalty": body.repeat_penalty,
        "penalty_last_n": body.repeat_last_n,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "seed": None if body.seed == -1 else body.seed,
        "stop": body.stop or (),
        "ignore_eos": body.ignore_eos,
        "logit_bias": _logit_bias(body.logit_bias, encode),
        "logprobs": body.n_probs or None,
        "constraint": _constraint(body),
        "dry_multiplier": body.dry_multiplier,
        "dry_base": body.dry_base,
        "dry_allowed_length": body.dry_allowed_length,
        "dry_penalty_last_n": body.dry_penalty_last_n,
    }
    if body.dry_sequence_breakers is not None:
        values["dry_sequence_breakers"] = body.dry_sequence_breakers
    if values["temperature"] > 0 and body.mirostat:
        values |= {
            "mirostat": body.mirostat,
            "mirostat_tau": body.mirostat_tau,
            "mirostat_eta": body.mirostat_eta,
        }
    elif values["temperature"] > 0:
        values |= {
            "top_k": max(0, body.top_k),
            "top_p": body.top_p,
            "min_p": body.min_p,
            "typical_p": body.typical_p,
            "top_n_sigma": max(0.0, body.top_n_sigma),
            "dynatemp_range": body.dynatemp_range,
            "dynatemp_exponent": body.dynatemp_exponent,
            "xtc_probability": body.xtc_probability,
            "xtc_threshold": body.xtc_threshold,
        }
        values["sampler_order"] = _order(body.samplers or DEFAULT_SAMPLERS)
        _drop_unsampled(values)
    return SamplingParams(**values)


def asked_parameters(body: GenerationBody) -> frozenset[str]:
    """The parameters that the client set itself, by the engine's names."""
    names = {_ENGINE_NAME.get(name, name) for name in body.model_fields_set}
    return frozenset(names & {field.name for field in dataclasses.fields(SamplingParams)})


def request_options(body: GenerationBody) -> RequestOptions:
    """How the body asks to be served."""
    return {"timeout_s": body.t_max_predict_ms / 1000} if body.t_max_predict_ms else {}


def settings(body: GenerationBody, params: SamplingParams) -> dict[str, Any]:
    """`generation_settings` of a reply: what acted, by llama-server's names."""
    return {
        "n_predict": body.n_predict,
        "max_tokens": body.n_predict,
        "n_keep": body.n_keep,
        "seed": body.seed if body.seed != -1 else 0xFFFFFFFF,
        "temperature": params.temperature,
        "dynatemp_range": params.dynatemp_range,
        "dynatemp_exponent": params.dynatemp_exponent,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "typical_p": params.typical_p,
        "top_n_sigma": params.top_n_sigma,
        "xtc_probability": params.xtc_probability,
        "xtc_threshold": params.xtc_threshold,
        "repeat_last_n": params.penalty_last_n,
        "repeat_penalty": params.repetition_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "dry_multiplier": params.dry_multiplier,
        "dry_base": params.dry_base,
        "dry_allowed_length": params.dry_allowed_length,
        "dry_penalty_last_n": params.dry_penalty_last_n,
        "dry_sequence_breakers": list(params.dry_sequence_breakers),
        "mirostat": params.mirostat,
        "mirostat_tau": params.mirostat_tau,
        "mirostat_eta": params.mirostat_eta,
        "stop": list(params.stop_strings),
        "ignore_eos": params.ignore_eos,
        "stream": body.stream,
        "n_probs": body.n_probs,
        "grammar": body.grammar or "",
        "samplers": list(body.samplers or DEFAULT_SAMPLERS),
        "timings_per_token": body.timings_per_token,
    }


def _order(samplers: list[str] | tuple[str, ...]) -> list[str]:
    order = [_STAGES[name] for name in dict.fromkeys(samplers) if name in _STAGES]
    # Those that look at whole rows come first with us, wherever they were named.
    whole = [name for name in ("penalties", "dry") if name in order]
    return [*whole, *(name for name in order if name not in whole)]


def _drop_unsampled(values: dict[str, Any]) -> None:
    """Leave out the parameters of stages that the order leaves out."""
    for stage, names in (
        ("penalties", ("repetition_penalty", "presence_penalty", "frequency_penalty")),
        ("dry", ("dry_multiplier",)),
        ("top_n_sigma", ("top_n_sigma",)),
        ("temperature", ("temperature", "dynatemp_range")),
        ("top_k", ("top_k",)),
        ("typical_p", ("typical_p",)),
        ("top_p", ("top_p",)),
        ("min_p", ("min_p",)),
        ("xtc", ("xtc_probability",)),
    ):
        if stage not in values["sampler_order"]:
            for name in names:
                values.pop(name, None)


def _constraint(body: GenerationBody) -> Constraint | None:
    if body.grammar and body.json_schema is not None:
        raise RequestError("expected this or json_schema, found both", parameter="grammar")
    if body.grammar:
        return Constraint.gbnf(body.grammar, parameter="grammar")
    if body.json_schema is not None:
        return Constraint.json_schema(body.json_schema, parameter="json_schema")
    return None


def _logit_bias(value: list[Any] | dict[str, Any] | None, encode: EncodeText) -> dict[int, float]:
    """`[[id or text, bias or false], ...]`, or an object of the same; a text means its tokens."""
    biases: dict[int, float] = {}
    items = list(value.items()) if isinstance(value, dict) else value or []
    for item in items:
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise _bias_refusal()
        target, bias = item
        if isinstance(bias, bool) and bias:
            raise _bias_refusal()
        if not isinstance(bias, (int, float)):
            raise _bias_refusal()
        amount = _FORBIDDEN if bias is False else max(-100.0, min(100.0, float(bias)))
        for token_id in _targets(target, isinstance(value, dict), encode):
            biases[token_id] = amount
    return biases


def _targets(target: Any, is_key: bool, encode: EncodeText) -> list[int]:
    if isinstance(target, bool) or not isinstance(target, (int, str)):
        raise _bias_refusal()
    if isinstance(target, int):
        return [target]
    if is_key and target.isascii() and target.isdigit() and len(target) <= 10:
        return [int(target)]  # an object's keys are strings even where they are ids
    return encode(target)


def _bias_refusal() -> RequestError:
    return RequestError(
        "expected pairs of a token id or a text, and a number or false", parameter="logit_bias"
    )
