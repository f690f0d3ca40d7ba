"""JsonScanner against Python's own parser."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.parsing.json_scanner import MAX_DEPTH, JsonScanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def scan(text: str) -> tuple[int, bool]:
    """How many characters fit, and whether they are a whole value."""
    scanner = JsonScanner()
    for position, character in enumerate(text):
        if not scanner.take(character):
            return position, scanner.is_done
    return len(text), scanner.is_done


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_every_json_text_fits(value: object, ascii_only: bool, indent: int | None) -> None:
    """What `json` writes is taken to its end, and found complete there and not before."""
    text = json.dumps([value], ensure_ascii=ascii_only, indent=indent)
    assert scan(text) == (len(text), True)
    assert scan(text[:-1]) == (len(text) - 1, False)


@given(VALUES, st.integers(0, 200), st.sampled_from(list('{}[]",:\\0.-+eEtn \n\x01xu')))
def test_what_is_taken_whole_is_json(value: object, position: int, character: str) -> None:
    """Whatever the scanner takes as a whole value, the parser takes, and the other way round."""
    text = json.dumps([value])
    position %= len(text)
    broken = text[:position] + character + text[position + 1 :]
    num_taken, is_done = scan(broken)
    try:
        json.loads(broken, parse_constant=lambda _: 1 / 0)
        is_json = True
    except (ValueError, ZeroDivisionError):
        is_json = False
    assert (num_taken == len(broken) and is_done) == is_json


@pytest.mark.parametrize(
    "text", ["[01]", "[1.]", "[.5]", "[+1]", "[1e]", "[-]", "[tru]", "[nulL]", '["\\x"]', "[1 2]",
             '["\n"]', "[,]", "[1,]", '{"a":1,}', "{1:2}", '{"a" 1}', '{"a":}', "[}", '["\\u12g4"]',
             "{,}", "[NaN]", "]"],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    """Near misses do not pass."""
    num_taken, is_done = scan(text)
    assert num_taken < len(text) or not is_done


def test_nesting_is_bounded() -> None:
    """Deeper than that is not followed."""
    assert scan("[" * MAX_DEPTH)[0] == MAX_DEPTH
    assert scan("[" * (MAX_DEPTH + 1))[0] == MAX_DEPTH
