"""The vocabulary in a GGUF file's metadata, read and checked.

Keys and token types: the GGUF specification, section "Tokenizer"; defaults where a key is
absent: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError
from quintet.formats.string_array import StringArray

PREFIX = "tokenizer.ggml."


class TokenKind(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Kinds that text only means when it comes from a template, never from a user.
CONTROL_KINDS = frozenset([TokenKind.CONTROL, TokenKind.UNKNOWN])


class TokenIds(Mapping[str, int]):
    """Token id by spelling."""

    def __init__(self, tokens: StringArray) -> None:
        self._tokens = tokens

    def __getitem__(self, text: str) -> int:
        try:
            place = self._tokens.finder.find(text.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            place = -1
        if place < 0:
            raise KeyError(text)
        return place

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)


class Vocabulary:
    """Typed, checked access to the tokenizer keys of one metadata mapping.

    Attributes:
        tokens: spelling by token id; an empty one reads `[EMPTY_<id>]`.
        kinds: TokenKind by token id, mutable: later rules correct what files get wrong.
        ids: token id by spelling.

    Raises:
        ModelFormatError: naming the key, when one is missing, of the wrong type or inconsistent.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.tokens = self._string_array("tokens", required=True)
        if self.tokens.has_empty:
            self.tokens = StringArray.of(
                token or f"[EMPTY_{i}]" for i, token in enumerate(self.tokens)
            )
        if not self.tokens:
            raise ModelFormatError(
                "expected at least one token, found none", part=PREFIX + "tokens"
            )
        self._check_tokens()
        self.ids = TokenIds(self.tokens)
        self.kinds = self._read_kinds()

    def has(self, name: str) -> bool:
        """Whether the file has `tokenizer.ggml.<name>`."""
        return PREFIX + name in self._metadata

    def text(self, name: str, default: str) -> str:
        """The string `tokenizer.ggml.<name>`, or the default where the file has none."""
        value = self._metadata.get(PREFIX + name, default)
        if not isinstance(value, str):
            raise _wrong_type(name, "a string", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        """The boolean `tokenizer.ggml.<name>`, or the default where the file has none."""
        value = self._metadata.get(PREFIX + name, default)
        if not isinstance(value, bool):
            raise _wrong_type(name, "a boolean", value)
        return value

    def token_id(self, name: str, default: int | None = None) -> int | None:
        """The token id `tokenizer.ggml.<name>_token_id`.

        A default outside the vocabulary counts as none; an id from the file must lie inside.
        """
        key = f"{name}_token_id"
        value = self._metadata.get(PREFIX + key)
        if value is None:
            return default if default is not None and default < len(self.tokens) else None
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(key, "an integer", value)
        if not 0 <= value < len(self.tokens):
            raise ModelFormatError(
                f"expected a token id below {len(self.tokens)}, found {value}", part=PREFIX + key
            )
        return value

    @cached_property
    def merges(self) -> StringArray:
        """`tokenizer.ggml.merges`, as they are; empty when absent."""
        return self._string_array("merges")

    def merge_pairs(self) -> list[tuple[str, str]]:
        """The two halves of each of `merges`.

        Raises:
            ModelFormatError: one without a space between two halves.
        """
        pairs = self.merges.to_pairs()
        return [halves(self.merges[pairs])] if isinstance(pairs, int) else pairs

    def scores(self) -> list[float]:
        """`tokenizer.ggml.scores`: a finite number per token."""
        values = self._array("scores", required=True)
        try:
            scores = [float(value) for value in values]
        except (TypeError, ValueError, OverflowError):
            raise ModelFormatError("expected an array of numbers", part=PREFIX + "scores") from None
        self._check_length("scores", len(scores))
        if not all(map(math.isfinite, scores)):
            raise ModelFormatError("expected finite numbers", part=PREFIX + "scores")
        return scores

    def byte_array(self, name: str) -> bytes:
        """The array of 8-bit integers `tokenizer.ggml.<name>`; empty when absent."""
        values = self._array(name, required=False)
        if not all(isinstance(value, int) and -128 <= value < 256 for value in values):
            raise ModelFormatError("expected an array of bytes", part=PREFIX + name)
        return bytes(value & 0xFF for value in values)  # some writers store them signed

    def _string_array(self, name: str, *, required: bool = False) -> StringArray:
        """The string array `tokenizer.ggml.<name>`; empty when absent and not required."""
        values = self._metadata.get(PREFIX + name)
        if isinstance(values, StringArray):
            return values
        values = self._array(name, required=required)
        if not all(isinstance(value, str) for value in values):
            raise ModelFormatError("expected an array of strings", part=PREFIX + name)
        try:
            return StringArray.of(values)
        except UnicodeEncodeError:
            raise ModelFormatError("expected UTF-8", part=PREFIX + name) from None

    def _array(self, name: str, *, required: bool) -> list[Any]:
        values = self._metadata.get(PREFIX + name)
        if values is None:
            if required:
                raise ModelFormatError("expected an array, found no such key", part=PREFIX + name)
            return []
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise _wrong_type(name, "an array", values)
        return values.tolist() if isinstance(values, np.ndarray) else list(values)

    def _read_kinds(self) -> bytearray:
        stored = self._metadata.get(PREFIX + "token_type")
        values: npt.NDArray[Any] | list[Any]
        if isinstance(stored, np.ndarray) and stored.dtype.kind in "iu":
            values = stored
        else:
            values = self._array("token_type", required=False)
        if len(values) == 0:
            return bytearray([TokenKind.NORMAL]) * len(self.tokens)
        self._check_length("token_type", len(values))
        try:
            if isinstance(values, list):
                kinds = bytearray(values)
            elif values.min() >= 0 and values.max() < 256:
                kinds = bytearray(values.astype(np.uint8).tobytes())
            else:
                raise ValueError
        except (TypeError, ValueError):
            raise ModelFormatError(
                "expected token types from 0 to 6", part=PREFIX + "token_type"
            ) from None
        if max(kinds) > TokenKind.BYTE:
            raise ModelFormatError(
                f"expected token types from 0 to 6, found {max(kinds)}", part=PREFIX + "token_type"
            )
        # 0 is "undefined": nothing is known against such a token.
        return kinds.replace(b"\x00", bytes([TokenKind.NORMAL]))

    def _check_length(self, name: str, length: int) -> None:
        if length != len(self.tokens):
            raise ModelFormatError(
                f"expected {len(self.tokens)} entries, one per token, found {length}",
                part=PREFIX + name,
            )

    def _check_tokens(self) -> None:
        index = self.tokens.finder
        first, second = index.duplicate()
        if first >= 0:
            raise ModelFormatError(
                f"expected distinct tokens, found {self.tokens[first]!r} at {first} and {second}",
                part=PREFIX + "tokens",
            )
        invalid = index.first_invalid()
        if invalid >= 0:
            raise ModelFormatError(
                f"expected UTF-8, found {self.tokens.raw(invalid)!r} at {invalid}",
                part=PREFIX + "tokens",
            )


def _wrong_type(name: str, expected: str, value: object) -> ModelFormatError:
    return ModelFormatError(
        f"expected {expected}, found {type(value).__name__}", part=PREFIX + name
    )


def ids_of_kinds(kinds: bytes | bytearray, wanted: Collection[TokenKind]) -> list[int]:
    """The ids, ascending, of the tokens that are of one of some kinds.

    Args:
        kinds: TokenKind by token id.
    """
    is_wanted = np.zeros(256, np.bool_)
    is_wanted[list(wanted)] = True
    found: list[int] = np.flatnonzero(is_wanted[np.frombuffer(kinds, np.uint8)]).tolist()
    return found


def halves(merge: str) -> tuple[str, str]:
    """What stands before and after the space of a merge.

    Raises:
        ModelFormatError: there is none.
    """
    cut = merge.find(" ", 1)  # a space at the start belongs to the left half
    if cut < 0:
        raise ModelFormatError(
            f"expected two tokens with a space between, found {merge!r}", part=PREFIX + "merges"
        )
    return merge[:cut], merge[cut + 1 :]
