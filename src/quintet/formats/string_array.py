"""Arrays of strings, found at once and decoded when asked for.

A vocabulary of 150,000 tokens and as many merges is most of the header of a GGUF file.  Making a
`str` of each takes longer than everything else there is to opening the file, so only their
positions are worked out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import overload

import numpy as np
import numpy.typing as npt

from quintet._native import StringIndex, decode_pairs, decode_strings, string_starts
from quintet.formats.byte_reader import U64, ByteReader

Positions = npt.NDArray[np.int64]


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

    @classmethod
    def of(cls, texts: Iterable[str]) -> StringArray:
        """These strings.

        Raises:
            UnicodeEncodeError: one with lone surrogates that do not stand for bytes.
        """
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        sizes = (U64.size + len(item) for item in encoded)
        starts = np.fromiter(accumulate(sizes, initial=0), np.int64, len(encoded) + 1)
        return cls(b"".join(U64.pack(len(item)) + item for item in encoded), starts)

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

    @cached_property
    def finder(self) -> StringIndex:
        """Finds strings by their bytes."""
        return StringIndex(self._encoded, self._starts)

    @property
    def has_empty(self) -> bool:
        """Whether there is a string of no bytes."""
        return bool((np.diff(self._starts) == U64.size).any())

    @property
    def encoded(self) -> tuple[bytes, Positions]:
        """The strings behind their lengths, where each of these is, and the end."""
        return self._encoded, self._starts

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
    starts = string_starts(reader.data, base, reader.end, count)
    reader.position = int(starts[-1])
    if len(starts) <= count:  # the next passes the end: this says so
        reader.require(reader.u64(part), part)
    lengths = np.diff(starts) - U64.size
    if count and lengths.max() > max_string_bytes:
        longest = int(lengths.argmax())
        raise reader.error(
            f"expected strings of at most {max_string_bytes} bytes, found {lengths[longest]}",
            f"{part}[{longest}]",
            int(starts[longest]),
        )
    return StringArray(reader.data[base : reader.position].tobytes(), starts - base)
