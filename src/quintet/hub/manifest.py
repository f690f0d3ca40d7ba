"""What the store knows of a model: its name, its file, and what its owner set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A model under a name.

    Args:
        name: "model:tag".
        path: the model file or directory, used where it lies.
        digest: SHA-256 in 64 hexadecimal digits, of the model file where it is known, else of
            this manifest's content.
        size_bytes: of the model file or files.
        modified_at: seconds since 1970.
        source: where it came from, e.g. "hf.co/user/repo:Q4_K_M", "local" or "package".
        template: a chat template (Jinja) in place of the file's own.
        system: a system message put before conversations that have none.
        parameters: defaults of requests, by Ollama's names, e.g. temperature, num_ctx, stop.
        messages: a conversation that comes before every other.
        license: its text.
    """

    name: str
    path: Path
    digest: str = ""
    size_bytes: int = 0
    modified_at: float = 0.0
    source: str = "local"
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    messages: Sequence[Mapping[str, str]] = ()
    license: str | None = None
