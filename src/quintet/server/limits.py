"""Request bodies: bounded while they are read, and JSON that means one thing only."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from quintet.errors import RequestError
from quintet.server.errors import HTTPRefusal
from quintet.server.settings import Settings

MAX_CONTAINERS = 100_000  # objects and arrays of one body; making millions takes seconds
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DEPTH_CHANGE = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


async def read_json(receive: Receive, settings: Settings) -> Any:
    """The JSON value of a request body.

    Raises:
        HTTPRefusal: 413 for a body that is too large, 408 for one that comes too slowly.
        RequestError: not strict JSON (see `parse_json`).
        ClientDisconnect: the client left before its body ended.
    """
    try:
        body = await asyncio.wait_for(
            _read_body(receive, settings.max_body_bytes), settings.body_timeout_s
        )
    except asyncio.TimeoutError:
        raise HTTPRefusal(
            408,
            f"the request body took longer than {settings.body_timeout_s:g} s",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from None
    return parse_json(body, settings.max_json_depth)


async def _read_body(receive: Receive, max_bytes: int) -> bytes:
    """Count what arrives rather than trust Content-Length: chunked bodies have none."""
    parts: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes > max_bytes:
            raise HTTPRefusal(
                413,
                f"the request body is larger than {max_bytes} bytes",
                code="request_too_large",
                headers={"Connection": "close"},
            )
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def parse_json(body: bytes, max_depth: int) -> Any:
    """Parse strict JSON: UTF-8, no NaN or Infinity, no duplicate keys, no lone surrogates.

    Raises:
        RequestError: anything else, or nesting deeper than max_depth.
    """
    _check_nesting(body, max_depth)
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        _refuse(f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        _refuse(f"{error.msg} at character {error.pos}")
    except ValueError:  # Python converts no integer of thousands of digits
        _refuse("a number is too large")
    if "\\u" in text and _has_surrogate(value):
        _refuse("a \\u escape names half of a surrogate pair")
    return value


def _check_nesting(body: bytes, max_depth: int) -> None:
    """Refuse brackets outside strings that are too deep or too many; exact for valid JSON.

    Looked at before parsing because the parser recurses per level.
    """
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(None, _NOT_BRACKETS)
    if len(brackets) > 2 * MAX_CONTAINERS:
        _refuse(f"more than {MAX_CONTAINERS} objects and arrays")
    depth = 0
    for bracket in brackets:
        depth += _DEPTH_CHANGE[bracket]
        if depth > max_depth:
            _refuse(f"nested deeper than {max_depth} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse("an object has the same key twice")
    return members


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse("a number is too large")
    return value


def _has_surrogate(value: Any) -> bool:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str) and any("\ud800" <= c <= "\udfff" for c in item):
            return True
    return False


def _refuse(reason: str) -> NoReturn:
    raise RequestError(f"expected a JSON body: {reason}")
