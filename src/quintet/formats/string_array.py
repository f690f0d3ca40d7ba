"""Arrays of strings, found at once and decoded when asked for.

A vocabulary of 150,000 tokens and as many merges is most of the header of a GGUF file.  Making a
`str` of each takes longer than everything else there is to opening the file, so only their
positions are worked out: vectorised where strings are short, one by one where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from quintet._native import decode_pairs, decode_strings
from quintet.formats.byte_reader import U64, ByteReader

Positions = npt.NDArray[np.int64]

# Bytes looked at per vectorised step, and how many strings it must find to be worth another.
_WINDOW_BYTES = 64 * 1024
_FEW_STRINGS = 64
# Strings read one by one before the vectorised step is tried again; doubles each time it is.
_SLOW_STRINGS = 1024
_MAX_SLOW_STRINGS = 64 * 1024


class StringArray(Sequence[str]):
    """
    An immutable sequence of strings over a private copy of their bytes.

    Strings of a vocabulary are not always UTF-8: a byte-level token may hold part of a
    character.  Invalid bytes decode to lone surrogates ("surrogateescape"), so
    `text.encode("utf-8", "surrogateescape")` gives the file's bytes back; `raw` gives them
    directly.  Slicing makes a list.
    """

    def __init__(self, encoded: bytes, starts: Positions) -> None:
        """`starts`: [n + 1], where each length prefix is in `encoded`, and then the end."""
        self._encoded = encoded
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.raw(index).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_list())

    def to_list(self) -> list[str]:
        """All strings, made at once."""
        return decode_strings(self._encoded, self._starts)

    def to_pairs(self) -> list[tuple[str, str]] | int:
        """All strings cut in two, or the index of one without a space to cut it at.

        The cut is the first space; one at the start of a string belongs to the left half.
        """
        return decode_pairs(self._encoded, self._starts)

    def __repr__(self) -> str:
        return f"StringArray of {len(self)}"

    def raw(self, index: int) -> bytes:
        """The bytes of one string, as stored."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        if index < 0:
            index += len(self)
        return self._encoded[int(self._starts[index]) + U64.size : int(self._starts[index + 1])]


def read_string_array(
    reader: ByteReader, count: int, part: str, *, max_string_bytes: int
) -> StringArray:
    """
    The next `count` strings, each a u64 length and its bytes.

    Raises:
        ModelFormatError: a string passes the end, or is longer than `max_string_bytes`.
    """
    base = reader.position
    starts = np.empty(count + 1, dtype=np.int64)
    found = 0
    patience = _SLOW_STRINGS
    while found < count:
        fast = _short_strings(reader.data[reader.position : reader.end], count - found)
        starts[found : found + len(fast)] = fast + reader.position
        found += len(fast)
        if len(fast):
            _skip_string(reader, int(starts[found - 1]), part)
        if len(fast) < _FEW_STRINGS:
            slow = _any_strings(reader, min(count - found, patience), part)
            patience = min(2 * patience, _MAX_SLOW_STRINGS)
            starts[found : found + len(slow)] = slow
            found += len(slow)
    starts[count] = reader.position
    lengths = np.diff(starts) - U64.size
    if count and lengths.max() > max_string_bytes:
        longest = int(lengths.argmax())
        raise reader.error(
            f"expected strings of at most {max_string_bytes} bytes, found {lengths[longest]}",
            f"{part}[{longest}]",
            int(starts[longest]),
        )
    return StringArray(reader.data[base : reader.position].tobytes(), starts - base)


def _short_strings(data: npt.NDArray[np.uint8], max_count: int) -> Positions:
    """
    Positions of the leading run of strings that are shorter than 256 bytes.

    The u64 length of such a string is one byte and seven zeros, and text has no zeros, so
    wherever seven zeros stand a string should start one byte before.  That is only a guess; a
    candidate counts when it is exactly where the string before it ends, the first being at 0.
    By induction those are the positions that reading one by one would give.
    """
    window = data[:_WINDOW_BYTES]
    if len(window) < U64.size:
        return np.empty(0, dtype=np.int64)
    is_zero = window == 0
    two = is_zero[:-1] & is_zero[1:]
    four = two[:-2] & two[2:]
    seven = four[:-3] & four[3:]
    candidates = np.flatnonzero(seven[1:])
    if not len(candidates) or candidates[0] != 0:
        return np.empty(0, dtype=np.int64)
    ends = candidates + U64.size + window[candidates]
    wrong = np.flatnonzero(candidates[1:] != ends[:-1])
    num_linked = int(wrong[0]) + 1 if len(wrong) else len(candidates)
    return candidates[: min(num_linked, max_count)]


def _any_strings(reader: ByteReader, count: int, part: str) -> list[int]:
    """Positions of the next `count` strings, one by one, moving the reader past them."""
    starts = []
    position, end, view = reader.position, reader.end, reader.view
    for _ in range(count):
        starts.append(position)
        if end - position < U64.size:
            break
        position += U64.size + U64.unpack_from(view, position)[0]
        if position > end:
            break
    if starts:  # The last may pass the end: this says so.
        _skip_string(reader, starts[-1], part)
    return starts


def _skip_string(reader: ByteReader, start: int, part: str) -> None:
    """Move the reader past the string whose length is at `start`."""
    reader.position = start
    num_bytes = reader.u64(part)
    reader.require(num_bytes, part)
    reader.position += num_bytes
