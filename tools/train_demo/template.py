"""Renders samples through the very chat template that export.py stores in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpus.sample import Message, Sample
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


def render(
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    return _TEMPLATE.render(
        messages=messages, tools=tools or None, add_generation_prompt=add_generation_prompt
    )


def training_text(sample: Sample) -> str:
    """Raw text ends with <|im_end|> too, so that a plain completion stops by itself."""
    if sample.text:
        return sample.text + "<|im_end|>"
    return render(sample.messages, sample.tools)


def _environment() -> ImmutableSandboxedEnvironment:
    # As transformers sets it up: a plain tojson (no HTML escapes), block lines leave no blanks.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment


_TEMPLATE = _environment().from_string(CHAT_TEMPLATE)
