"""What a tokenizer file comes down to, whichever format it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import tokenizers
from tokenizers.models import Model

from quintet.errors import ModelFormatError, RequestError
from quintet.tokenizer.byte_pairs import BytePairs
from quintet.tokenizer.plain_model import spells, without
from quintet.tokenizer.vocabulary import CONTROL_KINDS, TokenKind, ids_of_kinds

__all__ = ["CONTROL_KINDS", "Codec", "Matcher", "encode_text", "library_errors"]


class Matcher(Protocol):
    """Encodes texts in one way."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""


class _LibraryMatcher:
    """A `tokenizers` object."""

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self._library = library

    def encode(self, text: str) -> list[int]:
        # Unlike `encode`, this computes no offsets (half the time) and releases the GIL.
        encoding = self._library.encode_batch_fast([text], add_special_tokens=False)[0]
        ids: list[int] = encoding.ids
        return ids


@dataclass(frozen=True)
class Codec:
    """Everything a Tokenizer works from.

    Args:
        tokens: spelling by token id.
        ids: the other way round; made of `tokens` where there is none.
        kinds: TokenKind by token id.
        base: holds the model, its normalizer and its pre-tokenizer; nothing else of it is used.
            Or byte pairs, which need no more.
        added: tokens cut out of the text before `base` sees it, in the order of their ids;
            `special` marks control tokens.
        spelled_bytes: the bytes a normal token's spelling stands for.
        added_bytes: the bytes an added token's spelling stands for.
        drops_leading_space: decoding drops one space at the start of a text, which encoding added.
        prefix_ids, suffix_ids: what `add_special` puts around a text.
        between_ids: what stands between the two texts of a pair, which has the same around it.
        chat_templates: Jinja sources by name; "default" is the usual one.
    """

    tokens: Sequence[str]
    kinds: bytes
    base: tokenizers.Tokenizer | BytePairs
    added: list[tokenizers.AddedToken]
    spelled_bytes: Callable[[str], bytes]
    drops_leading_space: bool
    bos_id: int | None
    eos_id: int | None
    eog_ids: frozenset[int]
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    between_ids: tuple[int, ...] = ()
    added_bytes: Callable[[str], bytes] = str.encode
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ids:
            ids = {token: token_id for token_id, token in enumerate(self.tokens)}
            object.__setattr__(self, "ids", ids)

    def matcher(
        self, *, parse_special: bool, extra: Sequence[tokenizers.AddedToken] = ()
    ) -> Matcher:
        """What encodes texts and knows the added tokens.

        Args:
            parse_special: cut control tokens out of the text, too; otherwise nothing in a text
                gives one.
            extra: more tokens to cut out, with ids beyond the vocabulary.

        Raises:
            ModelFormatError: an added token would get another id than the file gives it.
        """
        if isinstance(self.base, BytePairs):
            added = [(token, self.ids[token.content]) for token in self.added]
            added += [(token, len(self.tokens) + i) for i, token in enumerate(extra)]
            return self.base.matcher(self.kinds, added, parse_special=parse_special)
        model = self.base.model if parse_special else self._plain_model(self.base)
        library = self._assemble(self.base, model, parse_special=parse_special, extra=extra)
        return _LibraryMatcher(library)

    def _plain_model(self, base: tokenizers.Tokenizer) -> Model:
        control = {token.content for token in self.added if token.special}
        known = base.model
        matcher = self._assemble(base, known, parse_special=False)
        ids = [
            token_id
            for token_id in ids_of_kinds(self.kinds, [TokenKind.CONTROL])
            if self.tokens[token_id] in control
        ]
        with library_errors("tokenizer"):
            return without(known, control) if spells(matcher, control, ids) else known

    def _assemble(
        self,
        base: tokenizers.Tokenizer,
        model: Model,
        *,
        parse_special: bool,
        extra: Sequence[tokenizers.AddedToken] = (),
    ) -> tokenizers.Tokenizer:
        matcher = tokenizers.Tokenizer(model)  # shares the model, copies nothing
        if base.normalizer is not None:
            matcher.normalizer = base.normalizer
        if base.pre_tokenizer is not None:
            matcher.pre_tokenizer = base.pre_tokenizer
        # Where the model was kept from spelling a control token, its id is taken without a name.
        hidden = {
            token.content
            for token in self.added
            if token.special
            and base.model.token_to_id(token.content) is not None
            and model.token_to_id(token.content) is None
        }
        added = [token for token in self.added if token.content not in hidden]
        matcher.add_tokens([*added, *extra])
        for token in added:
            token_id = matcher.token_to_id(token.content)
            if token_id is None or self.tokens[token_id : token_id + 1] != [token.content]:
                raise ModelFormatError(
                    f"expected added tokens in one run of ids, found {token.content!r} out of it",
                    part="added_tokens",
                )
        matcher.encode_special_tokens = not parse_special
        return matcher


def encode_text(matcher: Matcher, text: str) -> list[int]:
    """Token ids of a text, nothing added.

    Raises:
        RequestError: the text holds a lone surrogate, which no UTF-8 has.
        ModelFormatError: the model's own tables broke the library.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError("expected text without lone surrogates", parameter="text") from None
    with library_errors("tokenizer"):
        return matcher.encode(text)


@contextmanager
def library_errors(part: str) -> Iterator[None]:
    """Turn what the `tokenizers` library raises about a file's content into ModelFormatError.

    It raises plain Exception, and a Rust panic is no Exception at all: left alone it would pass
    every handler above us.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it has no narrower class
        raise ModelFormatError(f"the tokenizers library refuses it: {error}", part=part) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelFormatError(f"inconsistent tables: {error}", part=part) from None
