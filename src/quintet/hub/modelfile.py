"""Modelfiles: what a model is made from and how it answers, as text.

    # a comment
    FROM qwen3:0.6b
    PARAMETER temperature 0.7
    SYSTEM \"\"\"Several
    lines.\"\"\"
    MESSAGE user Hello.

Instructions may be written in any case.  A value may stand in one or three double quotes, and
then have several lines.

Source: Ollama documentation, "Modelfile Reference".  One thing differs: a TEMPLATE here is
Jinja, as in model files; one in Go's template language is left out with a warning, since the
model file has the same template in Jinja.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quintet.errors import RequestError, UnsupportedModelError
from quintet.hub.manifest import Manifest

MAX_BYTES = 4 * 2**20
ROLES = ("system", "user", "assistant")

_INTEGERS = (
    *("num_ctx", "num_predict", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread"),
    *("repeat_last_n", "seed", "top_k", "mirostat"),
)
_FLOATS = (
    *("temperature", "top_p", "min_p", "typical_p", "tfs_z", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty", "mirostat_tau", "mirostat_eta"),
)
_BOOLS = ("penalize_newline", "use_mmap", "use_mlock", "low_vram", "f16_kv", "numa")
_INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "MESSAGE", "LICENSE")
_IGNORED = ("RENDERER", "PARSER", "REQUIRES", "CAPABILITY")  # about Ollama's own machinery
# An action of Go's language: a field, or one of its keywords that Jinja writes in {% %}.
_GO_ACTION = re.compile(
    r"\{\{-?\s*(?:\.|\$|(?:if|range|end|else|with|template|block|define|slice|eq|and|or)\b)"
)


@dataclass(frozen=True, kw_only=True)
class Modelfile:
    """
    What a Modelfile says.

    Args:
        base: a model's name or a path: FROM.
        parameters: values by Ollama's names; `stop` is a list.
        template: Jinja.
        warnings: what was left out, and why.
    """

    base: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    messages: Sequence[Mapping[str, str]] = ()
    license: str | None = None
    warnings: Sequence[str] = ()


def parse_modelfile(text: str) -> Modelfile:
    """
    Read a Modelfile.

    Raises:
        RequestError: it breaks the format; says in which line.
        UnsupportedModelError: ADAPTER.
    """
    if len(text) > MAX_BYTES:
        raise _error(1, f"expected at most {MAX_BYTES:,} characters, found {len(text):,}")
    values: dict[str, str] = {}
    parameters: dict[str, object] = {}
    stops: list[str] = []
    messages: list[Mapping[str, str]] = []
    licenses: list[str] = []
    warnings: list[str] = []
    for line, instruction, value in _instructions(text):
        if instruction == "PARAMETER":
            name, parsed = _parameter(line, value)
            if name == "stop":
                stops.append(str(parsed))
            else:
                parameters[name] = parsed
        elif instruction == "MESSAGE":
            messages.append(_message(line, value))
        elif instruction == "LICENSE":
            licenses.append(_unquoted(line, value))
        elif instruction == "ADAPTER":
            raise UnsupportedModelError("Modelfile instruction", instruction, _INSTRUCTIONS)
        elif instruction in _IGNORED:
            warnings.append(f"line {line}: {instruction} has no meaning here")
        elif instruction not in _INSTRUCTIONS:
            raise _error(
                line, f"expected one of {', '.join(_INSTRUCTIONS)}, found {instruction!r:.40}"
            )
        elif instruction in values:
            raise _error(line, f"{instruction} is there twice")
        else:
            values[instruction] = _unquoted(line, value)
    if not values.get("FROM"):
        raise _error(1, "expected FROM and a model's name or path, found none")
    template = values.get("TEMPLATE")
    if template is not None and is_go_template(template):
        template = None
        warnings.append(
            "TEMPLATE is in Go's template language and was left out: the chat template of the "
            "model's file is used.  A TEMPLATE here is Jinja"
        )
    if stops:
        parameters["stop"] = stops
    return Modelfile(
        base=values["FROM"],
        parameters=parameters,
        template=template,
        system=values.get("SYSTEM"),
        messages=messages,
        license="\n".join(licenses) if licenses else None,
        warnings=warnings,
    )


def is_go_template(text: str) -> bool:
    """Whether a template is in Go's language rather than Jinja."""
    return _GO_ACTION.search(text) is not None


def checked_parameters(given: Mapping[str, object]) -> dict[str, object]:
    """
    Parameters that came as values rather than as text, e.g. in a request.

    Raises:
        RequestError: an unknown one, or a value of the wrong type; carries its name.
    """
    return {name: _checked(name, value) for name, value in given.items()}


def render_modelfile(manifest: Manifest) -> str:
    """A Modelfile that `parse_modelfile` reads, and that makes this model again."""
    lines = [f"# {manifest.name}, from {manifest.source}", f"FROM {manifest.path}"]
    for name, value in manifest.parameters.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            text = str(item).lower() if isinstance(item, bool) else str(item)
            head = f"PARAMETER {name}"
            lines.append(_written(head, text) if isinstance(item, str) else f"{head} {text}")
    texts = (
        ("TEMPLATE", manifest.template),
        ("SYSTEM", manifest.system),
        *((f"MESSAGE {each['role']}", each["content"]) for each in manifest.messages),
        ("LICENSE", manifest.license),
    )
    lines += [_written(head, content) for head, content in texts if content is not None]
    return "\n".join(lines) + "\n"


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, instruction in capitals, and value with its quotes."""
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        start, line = at + 1, lines[at].lstrip()
        at += 1
        if not line or line.startswith("#"):
            continue
        words = line.split(None, 1)
        instruction = words[0].upper()
        head, value = _head(instruction, words[1] if len(words) > 1 else "")
        opening = next((quote for quote in ('"""', '"') if value.startswith(quote)), "")
        pieces = [value]
        while opening and not _closes(pieces, opening):
            if at == len(lines):
                raise _error(start, f"{instruction}: expected {opening} at the end, found none")
            pieces.append(lines[at])
            at += 1
        yield start, instruction, head + "\n".join(pieces).rstrip()


def _head(instruction: str, value: str) -> tuple[str, str]:
    """What of a value comes before the part that may be quoted: a name or a role."""
    if instruction not in ("PARAMETER", "MESSAGE"):
        return "", value
    words = value.split(None, 1)
    return f"{words[0] if words else ''} ", words[1] if len(words) > 1 else ""


def _closes(pieces: Sequence[str], opening: str) -> bool:
    """Whether the last line ends what the first one opened."""
    last = pieces[-1].rstrip()
    if len(pieces) == 1:
        return len(last) >= 2 * len(opening) and last.endswith(opening)
    return last.endswith(opening)


def _unquoted(line: int, value: str) -> str:
    for quote in ('"""', '"'):
        if value.startswith(quote) and value.endswith(quote) and len(value) >= 2 * len(quote):
            return value[len(quote) : -len(quote)]
    if not value:
        raise _error(line, "expected a value, found none")
    return value


def _written(head: str, text: str) -> str:
    """An instruction with a text as it is read back, in whichever quotes that takes."""
    for quote in ('"""', '"'):
        written = f"{head} {quote}{text}{quote}"
        try:
            ((_, instruction, value),) = _instructions(written)
        except (ValueError, RequestError):  # several, or without an end
            continue
        if f"{instruction} {value}" == written:
            return written
    return f"# {head}: its text cannot be written in quotes"


def _parameter(line: int, value: str) -> tuple[str, object]:
    name, _, rest = value.partition(" ")
    name = name.lower()
    text = _unquoted(line, rest)
    try:
        return name, _checked(name, _typed(name, text))
    except RequestError as error:
        raise _error(line, str(error)) from error


def _typed(name: str, text: str) -> object:
    try:
        if name in _INTEGERS:
            return int(text)
        if name in _FLOATS:
            return float(text)
    except ValueError:
        return text  # refused for its type
    if name in _BOOLS:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    return text


def _checked(name: str, value: object) -> object:
    expected = ""
    if name in _INTEGERS:
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
            expected = "a whole number"
    elif name in _FLOATS:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            expected = "a number"
        elif not math.isfinite(value):
            expected = "a finite number"
    elif name in _BOOLS:
        expected = "" if isinstance(value, bool) else "true or false"
    elif name == "stop":
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(t, str) for t in texts):
            expected = "text"
    else:
        known = ", ".join(sorted((*_INTEGERS, *_FLOATS, *_BOOLS, "stop")))
        raise RequestError(f"unknown parameter {name!r:.60}; known: {known}", parameter=name[:60])
    if expected:
        raise RequestError(f"expected {expected}, found {value!r:.60}", parameter=name)
    return value


def _message(line: int, value: str) -> Mapping[str, str]:
    role, _, rest = value.partition(" ")
    if role.lower() not in ROLES:
        raise _error(line, f"MESSAGE: expected one of {', '.join(ROLES)}, found {role!r:.40}")
    return {"role": role.lower(), "content": _unquoted(line, rest)}


def _error(line: int, message: str) -> RequestError:
    return RequestError(f"line {line}: {message}", parameter="modelfile")
