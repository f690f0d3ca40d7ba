"""What request bodies of all dialects have in common: strict types, and errors that say where."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quintet.errors import RequestError
from quintet.server.exchange import note_ignored

MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
MAX_LOGIT_BIAS = 1024

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
KeepAlive = float | str  # seconds or a duration; see `keep_alive`

_log = logging.getLogger(__name__)

_MAX_TOLD = 256  # fields in the log
_MAX_ITEMS = 64  # of a list that are looked at
# A name the log may repeat: no digits, so neither keys nor ids.
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_]{0,39}")
_told: set[str] = set()

_TAG = "["  # begins the name of a union's member, which is no part of the body


class Body(BaseModel):
    """Strict: "1" is not 1, true is not 1, NaN is not a number.  Unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


_EXPECTED: dict[int | str, str] = {
    "prompt": "a string, a list of strings, a list of token ids, or a list of such lists",
    "stop": f"a string or at most {MAX_STOP_STRINGS}, each of 1 to {MAX_STOP_CHARS} characters",
    "content": "a string or a list of content parts",
    "keep_alive": 'seconds or a duration such as "5m"',
    "logit_bias": f"an object of at most {MAX_LOGIT_BIAS} token ids, as strings, to numbers",
}

B = TypeVar("B", bound=BaseModel)


def parse_body(kind: type[B], value: Any, expected: Mapping[int | str, str] | None = None) -> B:
    """Check a JSON value against a body.

    Args:
        kind: the body.
        value: what the client sent.
        expected: what to say of fields of which their types say too much.

    Raises:
        RequestError: names the first field at fault and what was expected; never echoes values.
    """
    if not isinstance(value, dict):
        raise RequestError("expected a JSON object as the request body")
    try:
        body = kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _refusal(first["loc"], first["msg"], _EXPECTED | dict(expected or {})) from None
    unknown = set(unknown_fields(body, value))
    if unknown:
        note_ignored(len(unknown))
        _tell_once(f"{kind.__name__}.{name}" for name in unknown)
    return body


def unknown_fields(body: BaseModel, value: Mapping[str, Any]) -> Iterator[str]:
    """Names of what was sent and is no field, of the body or of the bodies in it."""
    fields = {field.alias or name: name for name, field in type(body).model_fields.items()}
    for name, item in value.items():
        if name not in fields:
            yield name if _PLAIN_NAME.fullmatch(name) else "?"
            continue
        inner = getattr(body, fields[name])
        pairs = [(inner, item)]
        if isinstance(inner, list) and isinstance(item, list):
            pairs = list(zip(inner[:_MAX_ITEMS], item, strict=False))
        for part, sent in pairs:
            if isinstance(part, BaseModel) and isinstance(sent, dict):
                yield from (f"{name}.{below}" for below in unknown_fields(part, sent))


def _tell_once(names: Iterator[str]) -> None:
    for name in names:
        if name not in _told and len(_told) < _MAX_TOLD:
            _told.add(name)
            _log.warning("a field that is not known here is ignored: %s", name)


def _refusal(
    location: tuple[int | str, ...], message: str, expected: Mapping[int | str, str]
) -> RequestError:
    location = tuple(part for part in location if not str(part).startswith(_TAG))
    for depth, part in enumerate(location):
        if part in expected:  # a union: its members' own complaints would mislead
            location, message = location[: depth + 1], f"expected {expected[part]}"
            break
    return RequestError(message, parameter=".".join(map(str, location))[:100])
