"""Tokenizers: byte-level BPE from a vocabulary and merges, SentencePiece from its file.

Source of the file formats: openai/gpt-2, src/encoder.py (vocab.json, merges.txt).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from woolly.errors import TokenizerError

if TYPE_CHECKING:
    from quintet.tokenizer import Tokenizer as QuintetTokenizer

TokenId: TypeAlias = int

MAX_FILE_BYTES = 2**28
_CONTROL = re.compile(
    r"<\|[^<>\s]*\|>|</?s>|<(?:unk|pad|bos|eos|mask|s)>|\[(?:CLS|SEP|PAD|UNK|MASK)\]"
)
_NORMAL, _CONTROL_KIND = 1, 3  # tokenizer.ggml.token_type


@dataclass(frozen=True)
class SpecialTokens:
    """
    Token ids with a meaning of their own; None where there is none.

    Args:
        bos, eos: begin and end of a text.
        unk: what cannot be spelled.
        pad: fills batches up.
        eog: every token that ends what a model says.
    """

    bos: TokenId | None = None
    eos: TokenId | None = None
    unk: TokenId | None = None
    pad: TokenId | None = None
    eog: frozenset[TokenId] = frozenset()


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back."""

    def tokenize(self, text: str) -> list[TokenId]:
        """Token ids of a text."""

    def decode(self, tokens: Sequence[TokenId]) -> str:
        """The text of token ids."""

    def vocab_size(self) -> int:
        """The number of token ids."""

    def special_tokens(self) -> SpecialTokens:
        """Those with a meaning of their own."""


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


class BPETokenizer:
    """
    Byte-level BPE as GPT-2 has it.

    Args:
        vocab: its tokens; those spelled like <|endoftext|> never come of text.
        merges: pairs, best first.

    Raises:
        TokenizerError: a merge makes no token, or the vocabulary cannot be used.
    """

    def __init__(self, vocab: Vocabulary, merges: Iterable[tuple[str, str]]) -> None:
        prefix = "tokenizer.ggml."
        kinds = [_CONTROL_KIND if _CONTROL.fullmatch(token) else _NORMAL for token in vocab.tokens]
        metadata: dict[str, Any] = {
            f"{prefix}model": "gpt2",
            f"{prefix}pre": "gpt-2",
            f"{prefix}tokens": list(vocab.tokens),
            f"{prefix}token_type": kinds,
            f"{prefix}merges": [f"{left} {right}" for left, right in merges],
            f"{prefix}add_bos_token": False,
        }
        for name, spellings in _NAMED.items():
            found = next((vocab.id(each) for each in spellings if each in vocab), None)
            if found is not None:
                metadata[f"{prefix}{name}_token_id"] = found
        from quintet.errors import QuintetError
        from quintet.tokenizer import Tokenizer as QuintetTokenizer

        try:
            self._tokenizer = QuintetTokenizer.from_gguf(metadata)
        except QuintetError as error:
            raise TokenizerError(str(error)) from error
        self.vocabulary = vocab

    def tokenize(self, text: str) -> list[TokenId]:
        """Token ids of a text.

        Raises:
            TokenizerError: it holds half of a surrogate pair.
        """
        return _tokenize(self._tokenizer, text, add_special=False)

    def decode(self, tokens: Sequence[TokenId]) -> str:
        """The text of token ids.

        Raises:
            TokenizerError: there is no such token.
        """
        return _decode(self._tokenizer, tokens)

    def vocab_size(self) -> int:
        """The number of token ids."""
        return self._tokenizer.vocab_size

    def special_tokens(self) -> SpecialTokens:
        """Those with a meaning of their own."""
        return _special(self._tokenizer)


class SentencePieceTokenizer:
    """A SentencePiece tokenizer; use `from_file`."""

    def __init__(self, inner: _Inner) -> None:
        self._inner = inner

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SentencePieceTokenizer:
        """
        Read SentencePiece's own `.model`, or a GGUF file that holds the same.

        Raises:
            TokenizerError: it cannot be read, or is something else.
        """
        from quintet.errors import QuintetError
        from quintet.tokenizer import Tokenizer as QuintetTokenizer

        path = Path(path)
        if path.suffix not in (".gguf", ".json"):
            return cls(_ProcessorInner(path))
        try:
            return cls(_QuintetInner(QuintetTokenizer.from_file(path)))
        except QuintetError as error:
            raise TokenizerError(str(error)) from error

    def tokenize(self, text: str) -> list[TokenId]:
        """Token ids of a text; BOS comes first where a GGUF file asks for it."""
        return self._inner.tokenize(text)

    def decode(self, tokens: Sequence[TokenId]) -> str:
        """The text of token ids.

        Raises:
            TokenizerError: there is no such token.
        """
        return self._inner.decode(tokens)

    def vocab_size(self) -> int:
        """The number of token ids."""
        return self._inner.vocab_size()

    def special_tokens(self) -> SpecialTokens:
        """Those with a meaning of their own."""
        return self._inner.special_tokens()


_Inner: TypeAlias = Tokenizer


class _QuintetInner:
    def __init__(self, tokenizer: QuintetTokenizer) -> None:
        self._tokenizer = tokenizer

    def tokenize(self, text: str) -> list[TokenId]:
        return _tokenize(self._tokenizer, text, add_special=True)

    def decode(self, tokens: Sequence[TokenId]) -> str:
        return _decode(self._tokenizer, tokens)

    def vocab_size(self) -> int:
        return self._tokenizer.vocab_size

    def special_tokens(self) -> SpecialTokens:
        return _special(self._tokenizer)


class _ProcessorInner:
    """SentencePiece's own library."""

    def __init__(self, path: Path) -> None:
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise TokenizerError(f"{path}: {' '.join(str(error).split())}") from error

    def tokenize(self, text: str) -> list[TokenId]:
        return list(self._processor.encode(text))

    def decode(self, tokens: Sequence[TokenId]) -> str:
        for token_id in tokens:
            if not 0 <= token_id < self.vocab_size():
                raise TokenizerError(
                    f"expected a token id below {self.vocab_size()}, found {token_id}"
                )
        return str(self._processor.decode(list(tokens)))

    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size())

    def special_tokens(self) -> SpecialTokens:
        ids = {name: getattr(self._processor, f"{name}_id")() for name in _NAMES}
        known = {name: number if number >= 0 else None for name, number in ids.items()}
        eos = known["eos"]
        return SpecialTokens(**known, eog=frozenset(() if eos is None else (eos,)))


_NAMES = ("bos", "eos", "unk", "pad")
_NAMED = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"),
    "unknown": ("<unk>",),
    "padding": ("<pad>", "<|pad|>"),
}


def _read(path: str | os.PathLike[str]) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise TokenizerError(f"{os.fspath(path)}: expected at most {MAX_FILE_BYTES} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{os.fspath(path)}: {error}") from error


def _tokenize(tokenizer: QuintetTokenizer, text: str, *, add_special: bool) -> list[TokenId]:
    from quintet.errors import RequestError

    try:
        return tokenizer.encode(text, add_special=add_special)
    except RequestError as error:
        raise TokenizerError(str(error)) from error


def _decode(tokenizer: QuintetTokenizer, tokens: Sequence[TokenId]) -> str:
    try:
        return tokenizer.decode(tokens)
    except IndexError as error:
        raise TokenizerError(str(error)) from error


def _special(tokenizer: QuintetTokenizer) -> SpecialTokens:
    def named(name: str) -> int | None:
        return next(
            (i for each in _NAMED[name] if (i := tokenizer.token_to_id(each)) is not None), None
        )

    return SpecialTokens(
        bos=tokenizer.bos_id,
        eos=tokenizer.eos_id,
        unk=named("unknown"),
        pad=named("padding"),
        eog=frozenset(tokenizer.eog_ids),
    )
