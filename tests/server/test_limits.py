"""Request bodies: strict JSON within bounds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from quintet.errors import RequestError
from quintet.server.errors import HTTPRefusal
from quintet.server.limits import parse_json, read_json
from quintet.server.settings import Settings

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('ab[]{}\\"'), inner),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_any_json_value_survives(value: Any, ascii_only: bool):
    """What the standard library writes is read back, escaped or not."""
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), 64) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b"{'a': 1}",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"1" * 5000,
        b'{"a": 1, "a": 2}',
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b'["\\ud800\\u0041"]',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 100_000,
        b"[" + b"[]," * 100_000 + b"[]]",
        b'"a\nb"',
    ],
)
def test_dubious_json_is_refused(body: bytes):
    """Whatever parsers disagree about is refused as the client's error."""
    with pytest.raises(RequestError):
        parse_json(body, 64)


@pytest.mark.parametrize("depth", [1, 63, 64])
def test_depth_is_exact(depth: int):
    """Nesting is allowed up to the limit; brackets in strings do not count."""
    value = parse_json(b"[" * depth + b'"[[[[{{{{\\"[[[["' + b"]" * depth, depth)
    for _ in range(depth):
        (value,) = value
    assert value == '[[[[{{{{"[[[['
    with pytest.raises(RequestError, match="nested deeper"):
        parse_json(b"[" * depth + b"]" * depth, depth - 1)


def test_surrogate_pairs_are_text():
    """A whole pair of escapes is one character."""
    assert parse_json(b'"\\ud83d\\ude00"', 64) == "\U0001f600"


def test_an_unfinished_string_is_scanned_once():
    """An 8 MiB body of escaped quotes costs what its size says."""

    body = b'["' + b'\\"' * (4 << 20)
    with pytest.raises(RequestError):
        parse_json(body, 64)  # a scan per escaped quote would take hours: pytest's timeout ends it


def receiver(*messages: dict[str, Any]) -> Any:
    pending = list(messages)

    async def receive() -> dict[str, Any]:
        if not pending:
            await asyncio.sleep(60)
        return pending.pop(0)

    return receive


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_body_is_counted_while_read():
    """A chunked body is refused at the byte that is too many, before its end."""
    settings = Settings(max_body_bytes=10)
    receive = receiver(part(b"[1,2,"), part(b"3,4,5]"))
    with pytest.raises(HTTPRefusal) as caught:
        asyncio.run(read_json(receive, settings))
    assert caught.value.status == 413


def test_body_of_exactly_the_limit_is_read():
    """The limit itself is allowed."""
    receive = receiver(part(b"[1,2,"), part(b"3,4]", more=False))
    assert asyncio.run(read_json(receive, Settings(max_body_bytes=9))) == [1, 2, 3, 4]


def test_slow_body_is_refused():
    """A body that does not end in time is a 408."""
    with pytest.raises(HTTPRefusal) as caught:
        asyncio.run(read_json(receiver(part(b"[")), Settings(body_timeout_s=0.05)))
    assert caught.value.status == 408


def test_client_that_leaves_in_its_body():
    """A client that leaves before its body ends is no error of ours."""
    receive = receiver(part(b"["), {"type": "http.disconnect"})
    with pytest.raises(ClientDisconnect):
        asyncio.run(read_json(receive, Settings()))
