"""A stored model's parameters as arguments of `SamplingParams`.

Source: Ollama, docs/modelfile.md, "Valid Parameters and Values".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.hub.modelfile import checked_parameters

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


def sampling_defaults(parameters: Mapping[str, object]) -> dict[str, Any]:
    """
    What `Manifest.parameters` say of sampling, by the engine's names.

    Raises:
        RequestError: a parameter of a wrong type; carries its name.
    """
    given = checked_parameters(parameters)
    sampling: dict[str, Any] = {
        _SAMPLING[name]: value for name, value in given.items() if name in _SAMPLING
    }
    for name in ("max_tokens", "seed"):
        value = sampling.get(name)
        if isinstance(value, int) and value < 0:
            sampling[name] = None  # no limit, and a seed of its own for each answer
    if not sampling.get("mirostat"):
        for name in ("mirostat", "mirostat_tau", "mirostat_eta"):
            sampling.pop(name, None)  # that are without effect, and refused as such
    return sampling
