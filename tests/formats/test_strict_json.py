"""JSON from files: what is refused beyond what Python refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet.errors import ModelFormatError, ModelNotFoundError
from quintet.formats import strict_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(value=JSON, ascii_only=st.booleans())
def test_any_json_value_is_read(value: Any, ascii_only: bool) -> None:
    """Whatever can be written strictly can be read, escaped or not."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert strict_json.loads(text.encode(), path="x.json") == value


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' is there twice"),
        (b"[NaN]", "expected a number, found NaN"),
        (b"-Infinity", "found -Infinity"),
        (b"1e999", "expected a finite number, found 1e999"),
        (b"1" * 101, "at most 100 digits, found 101"),
        (b"1" * 1_000_000, "at most 100 digits"),
        (rb'["\ud800"]', "half a surrogate pair"),
        (rb'{"\udc00x": 1}', "half a surrogate pair"),
        (b'"\xff"', "expected UTF-8"),
        (b"\xef\xbb\xbf{}", "expected JSON"),
        (b"", "expected JSON"),
        (b'{"a": 1,}', "expected JSON"),
        (b"{'a': 1}", "expected JSON"),
        (b'{"a": 1} x', "expected JSON: Extra data"),
        (b'"a\nb"', "expected JSON"),
        (b"[" * 65 + b"]" * 65, "nesting of at most 64"),
        (b"[" * 100_000, "nesting of at most 64"),
        (b'{"a":' * 100_000, "nesting of at most 64"),
        (b"[" + b"[]," * 600_000 + b"[]]", "at most 1048576 values"),
    ],
)
def test_json_beyond_the_standard_or_the_limits_is_refused(encoded: bytes, message: str) -> None:
    """Each trick that Python's parser lets through, or that costs it dearly, is an error."""
    with pytest.raises(ModelFormatError, match=message) as caught:
        strict_json.loads(encoded, path="x.json", part="header", offset=8)
    assert (caught.value.path, caught.value.part) == ("x.json", "header")
    assert caught.value.offset is not None
    assert caught.value.offset >= 8


def test_syntax_errors_carry_their_offset_in_bytes() -> None:
    """The offset counts bytes of the file, not characters."""
    with pytest.raises(ModelFormatError) as caught:
        strict_json.loads('["é" x]'.encode(), path="x.json", offset=8)
    assert caught.value.offset == 8 + 6


def test_64_levels_and_large_numbers_are_read() -> None:
    """The limits themselves are allowed."""
    value = strict_json.loads(b"[" * 64 + b"]" * 64, path="x.json")
    for _ in range(63):
        (value,) = value
    assert value == []
    assert strict_json.loads(b"1" + b"0" * 30, path="x.json") == 10**30
    assert math.isclose(strict_json.loads(b"1e308", path="x.json"), 1e308)


def test_a_file_must_be_one_object_of_bounded_size(tmp_path: Path) -> None:
    """A config is an object, short enough, and there."""
    path = tmp_path / "config.json"
    with pytest.raises(ModelNotFoundError, match="No such file"):
        strict_json.load_object(path, max_bytes=100)
    path.write_text('{"a": [1, 2]}')
    assert strict_json.load_object(path, max_bytes=100) == {"a": [1, 2]}
    with pytest.raises(ModelFormatError, match="at most 12 bytes of JSON, found 13"):
        strict_json.load_object(path, max_bytes=12)
    path.write_text("[1]")
    with pytest.raises(ModelFormatError, match="expected a JSON object, found list"):
        strict_json.load_object(path, max_bytes=100)
