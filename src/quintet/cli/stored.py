"""What a stored model brings along: defaults for `quintet run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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
    from quintet.hub.defaults import sampling_defaults
    from quintet.hub.resolve import find

    manifest = find(model)
    if manifest is None:
        return StoredDefaults()
    num_ctx = manifest.parameters.get("num_ctx")
    sampling = sampling_defaults(manifest.parameters)
    return StoredDefaults(
        sampling, num_ctx if isinstance(num_ctx, int) else None, manifest.system, manifest.messages
    )
