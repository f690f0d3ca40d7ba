"""Arrays of strings: found fast, decoded late."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet.errors import ModelFormatError
from quintet.formats.byte_reader import ByteReader
from quintet.formats.string_array import StringArray, read_string_array

from .gguf_bytes import string, u64

# Mostly what vocabularies hold; also what the fast path must not be fooled by: empty strings,
# zero bytes, lengths of two bytes, contents that look like lengths.
TEXTS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=12),
        st.just(b""),
        st.binary(min_size=250, max_size=600),
        st.integers(0, 2**16).map(u64),
        st.integers(0, 30).map(bytes),
    ),
    max_size=200,
)


def read(encoded: bytes, count: int, max_string_bytes: int = 2**16) -> tuple[StringArray, int]:
    """The strings, and where reading stopped."""
    reader = ByteReader(np.frombuffer(encoded, np.uint8), path="x.gguf", max_bytes=2**62)
    strings = read_string_array(reader, count, "tokens", max_string_bytes=max_string_bytes)
    return strings, reader.position


@settings(max_examples=300, deadline=None)
@given(texts=TEXTS, tail=st.binary(max_size=40))
def test_strings_come_back_as_they_were_written(texts: list[bytes], tail: bytes) -> None:
    """Whatever the strings contain and whatever follows them, each is found where it is."""
    encoded = b"".join(map(string, texts))
    strings, position = read(encoded + tail, len(texts))
    assert position == len(encoded)
    assert [strings.raw(i) for i in range(len(strings))] == texts
    assert [text.encode("utf-8", "surrogateescape") for text in strings] == texts
    assert list(strings) == strings[:]


@pytest.mark.parametrize("texts", [[b"a"] * 20_000, [b""] * 20_000, [b"x" * 300, b"\0"] * 5_000])
def test_long_arrays_cross_the_windows_of_the_fast_path(texts: list[bytes]) -> None:
    """Many strings, all short, all empty or all awkward, are read to the last one."""
    strings, _ = read(b"".join(map(string, texts)), len(texts))
    assert len(strings) == len(texts)
    assert list(strings) == [text.decode() for text in texts]


def test_a_string_array_is_an_immutable_sequence() -> None:
    """Indices, slices, len, iteration and membership work as for a tuple."""
    strings, _ = read(b"".join(map(string, ["a", "é", "日本"])), 3)
    assert (len(strings), strings[0], strings[-1], strings[1:]) == (3, "a", "日本", ["é", "日本"])
    assert "é" in strings
    assert strings.index("日本") == 2
    assert list(reversed(strings)) == ["日本", "é", "a"]
    for index in (3, -4):
        with pytest.raises(IndexError):
            strings[index]
    with pytest.raises(TypeError):
        strings[0] = "b"  # type: ignore[index]


def test_bytes_that_are_not_utf8_can_be_recovered() -> None:
    """Half a character in a token survives as surrogates and as raw bytes."""
    strings, _ = read(string(b"\xe6\x97"), 1)
    assert strings[0] == "\udce6\udc97"
    assert strings[0].encode("utf-8", "surrogateescape") == strings.raw(0) == b"\xe6\x97"


@pytest.mark.parametrize("length", [4, 255, 256, 2**31, 2**32 + 3, 2**63, 2**64 - 1])
@pytest.mark.parametrize("num_before", [0, 1, 500])
def test_a_string_past_the_end_is_refused(length: int, num_before: int) -> None:
    """No length, however large, reads beyond the file."""
    encoded = string("abc") * num_before + string("abc", length=length)
    with pytest.raises(ModelFormatError, match="bytes ahead") as caught:
        read(encoded, num_before + 1)
    assert caught.value.offset == num_before * 11 + 8


def test_a_missing_length_is_refused() -> None:
    """An array that claims one string more than there is ends in an error."""
    with pytest.raises(ModelFormatError, match="needs 8 bytes"):
        read(string("abc") * 100, 101)


def test_a_string_longer_than_the_limit_is_refused() -> None:
    """A token of megabytes is no token (CVE-2025-49847)."""
    with pytest.raises(ModelFormatError, match="at most 100 bytes, found 101") as caught:
        read(string("a") + string("b" * 101), 2, max_string_bytes=100)
    assert (caught.value.part, caught.value.offset) == ("tokens[1]", 9)


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS)
def test_strings_made_at_once_are_those_made_one_by_one(texts: list[bytes]) -> None:
    """Whatever their bytes; and pairs are cut at the first space behind the first character."""
    strings, _ = read(b"".join(string(text) for text in texts), len(texts))
    listed = [strings[i] for i in range(len(strings))]
    assert strings.to_list() == list(strings) == listed
    pairs = strings.to_pairs()
    without = [i for i, text in enumerate(listed) if text.find(" ", 1) < 0]
    if without:
        assert pairs == without[0]
    else:
        assert pairs == [(t[: t.find(" ", 1)], t[t.find(" ", 1) + 1 :]) for t in listed]


def test_pairs_are_cut_where_a_merge_is() -> None:
    """A space at the start belongs to the left half; halves may hold characters of any length."""
    texts = ["a b", " a b", "\u0120 t", "\U0001f600 \u00e9 x", "a  b"]
    strings, _ = read(b"".join(string(text) for text in texts), len(texts))
    assert strings.to_pairs() == [
        ("a", "b"),
        (" a", "b"),
        ("\u0120", "t"),
        ("\U0001f600", "\u00e9 x"),
        ("a", " b"),
    ]


@pytest.mark.parametrize("starts", [[], [-1, 9], [0, 10], [0, 7], [9, 0]])
def test_starts_outside_the_bytes_are_refused(starts: list[int]) -> None:
    """The native side trusts no position."""
    array = StringArray(bytes(9), np.array(starts, np.int64))
    with pytest.raises(ValueError, match="starts"):
        array.to_list()
