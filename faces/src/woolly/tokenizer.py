"""What a tokenizer is, and byte-level BPE from a vocabulary and merges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from woolly.errors import TokenizerError
from woolly.vocabulary import TokenId, Vocabulary

if TYPE_CHECKING:
    from quintet.tokenizer import Tokenizer as QuintetTokenizer

_CONTROL = re.compile(
    r"<\|[^<>\s]*\|>|</?s>|<(?:unk|pad|bos|eos|mask|s)>|\[(?:CLS|SEP|PAD|UNK|MASK)\]"
)
_NORMAL, _CONTROL_KIND = 1, 3  # tokenizer.ggml.token_type
_NAMED = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"),
    "unknown": ("<unk>",),
    "padding": ("<pad>", "<|pad|>"),
}


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


class QuintetTokens:
    """
    A tokenizer of Quintet's as Woolly has them.

    Args:
        tokenizer: does the work.
        add_special: a text begins with BOS, where the tokenizer's file asks for it.
    """

    def __init__(self, tokenizer: QuintetTokenizer, *, add_special: bool) -> None:
        self._tokenizer = tokenizer
        self._add_special = add_special

    def tokenize(self, text: str) -> list[TokenId]:
        """Token ids of a text.

        Raises:
            TokenizerError: it holds half of a surrogate pair.
        """
        from quintet.errors import RequestError

        try:
            return self._tokenizer.encode(text, add_special=self._add_special)
        except RequestError as error:
            raise TokenizerError(str(error)) from error

    def decode(self, tokens: Sequence[TokenId]) -> str:
        """The text of token ids.

        Raises:
            TokenizerError: there is no such token.
        """
        try:
            return self._tokenizer.decode(tokens)
        except IndexError as error:
            raise TokenizerError(str(error)) from error

    def vocab_size(self) -> int:
        """The number of token ids."""
        return self._tokenizer.vocab_size

    def special_tokens(self) -> SpecialTokens:
        """Those with a meaning of their own."""
        tokenizer = self._tokenizer

        def named(name: str) -> int | None:
            ids = map(tokenizer.token_to_id, _NAMED[name])
            return next((each for each in ids if each is not None), None)

        return SpecialTokens(
            bos=tokenizer.bos_id,
            eos=tokenizer.eos_id,
            unk=named("unknown"),
            pad=named("padding"),
            eog=frozenset(tokenizer.eog_ids),
        )


class BPETokenizer(QuintetTokens):
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
            tokenizer = QuintetTokenizer.from_gguf(metadata)
        except QuintetError as error:
            raise TokenizerError(str(error)) from error
        super().__init__(tokenizer, add_special=False)
        self.vocabulary = vocab
