"""The files beside a tokenizer: what Hugging Face's libraries put into a model's directory.

Source: transformers, tokenization_utils_base.py, for which file says what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quintet.errors import ModelFormatError

_MAX_FILE_SIZE = 256 << 20


def token_text(config: Mapping[str, Any], name: str) -> str:
    """The spelling of a token that tokenizer_config.json names, e.g. "bos_token"; "" for none."""
    value = config.get(name)
    if isinstance(value, Mapping):  # an added token written out with its flags
        value = value.get("content")
    return value if isinstance(value, str) else ""


def generation_eos(directory: Path, vocab_size: int) -> list[int]:
    """The ids that generation_config.json ends an answer with."""
    value = read_json(directory / "generation_config.json").get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [
        token_id
        for token_id in values
        if isinstance(token_id, int)
        and not isinstance(token_id, bool)
        and 0 <= token_id < vocab_size
    ]


def chat_templates(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Jinja sources by name; a file of its own goes before what tokenizer_config.json holds.

    Raises:
        ModelFormatError: they are no list of named templates.
    """
    value = config.get("chat_template")
    templates: dict[str, str] = {}
    if isinstance(value, str):
        templates["default"] = value
    elif isinstance(value, list):
        for entry in value:
            if not (
                isinstance(entry, Mapping)
                and isinstance(entry.get("name"), str)
                and isinstance(entry.get("template"), str)
            ):
                raise ModelFormatError("expected a list of named templates", part="chat_template")
            templates[entry["name"]] = entry["template"]
    own_file = read_text(directory / "chat_template.jinja")
    if own_file is not None:
        templates["default"] = own_file
    return templates


def read_json(path: Path) -> Mapping[str, Any]:
    """A file's object; empty when there is no such file.

    Raises:
        ModelFormatError: it is no JSON object.
    """
    text = read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"not valid JSON: {error}", path=path) from None
    if not isinstance(value, dict):
        raise ModelFormatError(f"expected an object, found {type(value).__name__}", path=path)
    return value


def read_text(path: Path) -> str | None:
    """The file's text, or None when there is no such file."""
    try:
        if path.stat().st_size > _MAX_FILE_SIZE:
            raise ModelFormatError(f"expected at most {_MAX_FILE_SIZE} bytes", path=path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"expected UTF-8: {error.reason}", path=path) from None
