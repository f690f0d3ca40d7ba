"""What a stored model brings along: defaults for `quintet run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Names of Modelfiles and of sampling parameters.  The rest of what a Modelfile may set says
# how Ollama lays out its own memory.
_SAMPLING = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")},
    **{name: name for name in ("stop", "presence_penalty", "frequency_penalty")},
    **{name: name for name in ("mirostat", "mirostat_tau", "mirostat_eta")},
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_last_n",
    "num_predict": "max_tokens",
}


@dataclass(frozen=True)
class StoredDefaults:
    """
    What applies where the command line says nothing.

    Args:
        sampling: arguments of `SamplingParams`.
        max_model_len: num_ctx.
        system, messages: what every conversation begins with.
    """

    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_model_len: int | None = None
    system: str | None = None
    messages: Sequence[Mapping[str, str]] = ()


def stored_defaults(model: str) -> StoredDefaults:
    """The defaults of a model; none for a path or a packaged model.

    Raises:
        ModelFormatError: its manifest is damaged.
        RequestError: a stored parameter of a wrong type.
    """
    from quintet.hub.modelfile import checked_parameters
    from quintet.hub.resolve import find

    manifest = find(model)
    if manifest is None:
        return StoredDefaults()
    given = checked_parameters(manifest.parameters)
    sampling = {_SAMPLING[name]: value for name, value in given.items() if name in _SAMPLING}
    for name in ("max_tokens", "seed"):
        value = sampling.get(name)
        if isinstance(value, int) and value < 0:
            sampling[name] = None  # no limit, and a seed of its own for each answer
    if not sampling.get("mirostat"):
        for name in ("mirostat", "mirostat_tau", "mirostat_eta"):
            sampling.pop(name, None)  # that are without effect, and refused as such
    num_ctx = given.get("num_ctx")
    return StoredDefaults(
        sampling, num_ctx if isinstance(num_ctx, int) else None, manifest.system, manifest.messages
    )
