"""The tokens of a BPE tokenizer, and how they merge: vocab.json and merges.txt.

Source of the file formats: openai/gpt-2, src/encoder.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from woolly.errors import TokenizerError

TokenId: TypeAlias = int

MAX_FILE_BYTES = 2**28


class Vocabulary:
    """
    Tokens by id.

    Args:
        tokens: spellings in the order of their ids, or ids by spelling.

    Raises:
        TokenizerError: the ids are not 0, 1, 2...
    """

    def __init__(self, tokens: Sequence[str] | Mapping[str, int]) -> None:
        if isinstance(tokens, Mapping):
            by_id = sorted(tokens.items(), key=lambda item: item[1])
            if [number for _, number in by_id] != list(range(len(by_id))):
                raise TokenizerError("expected the token ids 0, 1, 2... once each")
            tokens = [token for token, _ in by_id]
        self._tokens = tuple(tokens)
        self._ids = {token: number for number, token in enumerate(self._tokens)}

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """
        Read a vocab.json: ids by spelling.

        Raises:
            TokenizerError: it cannot be read, or is something else.
        """
        try:
            content = json.loads(_read(path))
        except (ValueError, RecursionError) as error:
            raise TokenizerError(f"{os.fspath(path)}: {error}") from error
        is_vocabulary = isinstance(content, dict) and all(
            isinstance(number, int) and not isinstance(number, bool) for number in content.values()
        )
        if not is_vocabulary:
            raise TokenizerError(f"{os.fspath(path)}: expected ids by spelling")
        return cls(content)

    def token(self, token_id: TokenId) -> str:
        """A token's spelling.

        Raises:
            TokenizerError: there is no such token.
        """
        if not 0 <= token_id < len(self._tokens):
            raise TokenizerError(f"expected a token id below {len(self._tokens)}, found {token_id}")
        return self._tokens[token_id]

    def id(self, token: str) -> TokenId | None:
        """The id of a spelling; None where there is none."""
        return self._ids.get(token)

    @property
    def tokens(self) -> tuple[str, ...]:
        """All spellings."""
        return self._tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids


def load_merges(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """
    Read a merges.txt: a pair per line, best first; a first line `#version: ...` is skipped.

    Raises:
        TokenizerError: it cannot be read, or a line is no pair.
    """
    pairs = []
    for number, line in enumerate(_read(path).split("\n")):
        if not line or (number == 0 and line.startswith("#version")):
            continue
        left, separator, right = line.rstrip("\r").partition(" ")
        if not (separator and left and right) or " " in right:
            raise TokenizerError(f"{os.fspath(path)}, line {number + 1}: expected a pair")
        pairs.append((left, right))
    return pairs


def _read(path: str | os.PathLike[str]) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise TokenizerError(f"{os.fspath(path)}: expected at most {MAX_FILE_BYTES} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{os.fspath(path)}: {error}") from error
