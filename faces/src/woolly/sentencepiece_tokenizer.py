"""SentencePiece, from its own file or from a GGUF file that holds the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from woolly.errors import TokenizerError
from woolly.tokenizer import QuintetTokens, SpecialTokens, Tokenizer
from woolly.vocabulary import TokenId

_NAMES = ("bos", "eos", "unk", "pad")


class SentencePieceTokenizer:
    """A SentencePiece tokenizer; use `from_file`."""

    def __init__(self, inner: Tokenizer) -> None:
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
            return cls(_Processor(path))
        try:
            return cls(QuintetTokens(QuintetTokenizer.from_file(path), add_special=True))
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


class _Processor:
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
