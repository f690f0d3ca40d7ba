"""Options and formats of a body to what the engine takes.

A model's own parameters come before Ollama's defaults, and a request's before both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.engine.request import RequestOptions
from quintet.errors import RequestError
from quintet.sampling.constraint import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.bodies import parse_body
from quintet.server.dialects.ollama.bodies import Format, GenerationBody, Options

# docs/modelfile.md, "Valid Parameters and Values", where they differ from the engine's own.
_DEFAULTS = Options(
    temperature=0.8, top_k=40, top_p=0.9, min_p=0.0, repeat_penalty=1.1, repeat_last_n=64
)
_SAME_NAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)
_TRUNCATIONS = ("top_k", "top_p", "min_p", "typical_p")


def merged_options(stored: Mapping[str, object], asked: Options | None) -> Options:
    """What acts: the request's options over the model's over Ollama's defaults.

    Raises:
        RequestError: a stored parameter of a wrong type.
    """
    values = _DEFAULTS.model_dump(exclude_none=True)
    values |= parse_body(Options, dict(stored)).model_dump(exclude_none=True)
    if asked is not None:
        values |= asked.model_dump(exclude_none=True)
    return Options(**values)


def sampling_params(body: GenerationBody, options: Options) -> SamplingParams:
    """What a body asks of the sampler.

    Raises:
        RequestError: a value out of range, or a format that is none.
    """
    values: dict[str, Any] = {
        name: value for name in _SAME_NAME if (value := getattr(options, name)) is not None
    }
    if not values.get("mirostat"):
        for name in ("mirostat", "mirostat_tau", "mirostat_eta"):
            values.pop(name, None)
    if values.get("temperature") == 0 or values.get("mirostat"):
        for name in _TRUNCATIONS:
            values.pop(name, None)
    if values.get("temperature") == 0:
        values.pop("mirostat", None)
    num_predict = -1 if options.num_predict is None else options.num_predict
    stop = options.stop or ()
    return SamplingParams(
        **values,
        max_tokens=None if num_predict < 0 else max(1, num_predict),
        repetition_penalty=1.0 if options.repeat_penalty is None else options.repeat_penalty,
        penalty_last_n=-1 if options.repeat_last_n is None else options.repeat_last_n,
        seed=None if options.seed in (None, -1) else options.seed,
        stop=[stop] if isinstance(stop, str) else stop,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=constraint(body.format),
    )


def request_options(body: GenerationBody, options: Options) -> RequestOptions:
    """How a body asks to be served: a context that slides only where the client says so."""
    if not body.shift or options.num_predict is None or options.num_predict < 0:
        return {}
    return {"overflow": "slide", "num_keep_tokens": max(0, options.num_keep or 0)}


def constraint(format_: Format | None) -> Constraint | None:
    """What `format` demands: nothing, any JSON object, or a schema.

    Raises:
        RequestError: another string.
    """
    if format_ is None or format_ == "":
        return None
    if isinstance(format_, dict):
        return Constraint.json_schema(format_, parameter="format")
    if format_ == "json":
        return Constraint.json_object(parameter="format")
    raise RequestError('expected "json" or a JSON schema', parameter="format")
