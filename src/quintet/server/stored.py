"""What a stored model brings to every conversation: its system prompt, messages and parameters.

They are defaults, on every protocol: what a request says itself goes first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from typing import Any, Final

from quintet.hub.defaults import sampling_defaults
from quintet.hub.manifest import Manifest
from quintet.sampling.params import SamplingParams
from quintet.server.requests import ChatPrompt, GenerationRequest

_TRUNCATIONS: Final = ("top_k", "top_p", "min_p", "typical_p")
_MIROSTAT: Final = ("mirostat", "mirostat_tau", "mirostat_eta")
# Nothing of this acts where the most probable token is taken.
_DRAWING: Final = (
    *_TRUNCATIONS,
    *_MIROSTAT,
    "top_n_sigma",
    "dynatemp_range",
    "xtc_probability",
    "sampler_order",
)


def with_defaults(request: GenerationRequest, manifest: Manifest) -> GenerationRequest:
    """A request with what its model's owner set and it does not say; once is enough.

    Raises:
        RequestError: a stored parameter of a wrong type, or out of range.
    """
    if request.asked is None:
        return request
    prompt = request.prompt
    if isinstance(prompt, ChatPrompt):
        prompt = with_stored_messages(prompt, manifest)
    params = request.params
    if manifest.parameters:
        params = _with_parameters(params, request.asked, sampling_defaults(manifest.parameters))
    return dataclasses.replace(request, prompt=prompt, params=params, asked=None)


def with_stored_messages(prompt: ChatPrompt, manifest: Manifest) -> ChatPrompt:
    """A conversation as `with_defaults` makes it; for who counts its tokens."""
    return dataclasses.replace(prompt, messages=with_stored(prompt.messages, manifest))


def with_stored(messages: list[dict[str, Any]], manifest: Manifest) -> list[dict[str, Any]]:
    """The conversation behind the model's own messages; its system message unless one is given."""
    stored = [dict(message) for message in manifest.messages]
    has_system = any(message["role"] == "system" for message in (*stored, *messages))
    if manifest.system and not has_system:
        stored.insert(0, {"role": "system", "content": manifest.system})
    elif stored and messages and messages[0]["role"] == "system":
        return [messages[0], *stored, *messages[1:]]
    return [*stored, *messages]


def _with_parameters(
    params: SamplingParams, asked: Set[str], stored: dict[str, Any]
) -> SamplingParams:
    """The parameters with these defaults, without those that the rest keeps from acting."""
    values = {name: value for name, value in stored.items() if name not in asked}
    draws = any(getattr(params, name) != _OFF[name] for name in _DRAWING if name in asked)
    if draws and values.get("temperature") == 0:
        del values["temperature"]
    if draws:
        _drop(values, _MIROSTAT)
    if "sampler_order" in asked:
        _drop(values, _TRUNCATIONS)
    if values.get("temperature", params.temperature) == 0:
        values |= _OFF  # a protocol's own defaults as well
    elif values.get("mirostat"):
        values |= {name: _OFF[name] for name in _DRAWING if name not in _MIROSTAT}
    elif params.mirostat:
        _drop(values, _TRUNCATIONS)
    if (values.get("max_tokens") or params.min_tokens) < params.min_tokens:
        del values["max_tokens"]
    return dataclasses.replace(params, **values)


def _drop(values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        values.pop(name, None)


_OFF: Final = {name: getattr(SamplingParams(), name) for name in _DRAWING}
