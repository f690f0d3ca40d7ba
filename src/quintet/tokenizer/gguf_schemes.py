"""The kinds of tokenizers that GGUF files hold, as `tokenizers` objects.

Behaviour and defaults: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from quintet.errors import ModelFormatError
from quintet.tokenizer.codec import library_errors
from quintet.tokenizer.pieces import (
    SPACE_MARK,
    byte_level_bytes,
    mark_word_piece_bytes,
    sentencepiece_bytes,
    word_start_bytes,
)
from quintet.tokenizer.pretokenizers import pre_tokenization
from quintet.tokenizer.sentencepiece import merges_by_score, pieces_stay_within_words
from quintet.tokenizer.vocabulary import PREFIX, TokenKind, Vocabulary

_log = logging.getLogger(__name__)

# Longer words are unknown: WordPiece tries every prefix of a word.  As in BERT.
_MAX_WORD_LENGTH = 100
_WORDS = f"{SPACE_MARK}*[^{SPACE_MARK}]+|{SPACE_MARK}+"


@dataclass(frozen=True)
class Scheme:
    """One way of tokenizing, and its defaults for what the file leaves out."""

    base: tokenizers.Tokenizer
    spelled_bytes: Callable[[str], bytes]
    added_bytes: Callable[[str], bytes] = str.encode
    drops_leading_space: bool = False
    bos_id: int | None = None
    eos_id: int | None = None
    adds_bos: bool = False
    adds_eos: bool = False
    always_adds_bos: bool = False
    wraps_in_cls_sep: bool = False


def _byte_pair(vocabulary: Vocabulary) -> Scheme:
    name = vocabulary.text("pre", "")
    if not name:
        # Files from before the key was introduced; llama.cpp reads them the same way.
        _log.warning("%spre is missing: text may be cut otherwise than in training", PREFIX)
        name = "default"
    return _byte_pair_named(vocabulary, name)


def _gemma4(vocabulary: Vocabulary) -> Scheme:
    return _byte_pair_named(vocabulary, "gemma4")


def _byte_pair_named(vocabulary: Vocabulary, name: str) -> Scheme:
    rules = pre_tokenization(name)
    if not vocabulary.has("merges"):
        raise ModelFormatError("expected an array, found no such key", part=PREFIX + "merges")
    merges = vocabulary.merges
    try:
        model = models.BPE(
            vocab=vocabulary.ids,
            merges=merges,
            ignore_merges=rules.ignores_merges,
            byte_fallback=not rules.is_byte_level,
        )
    except Exception as error:  # noqa: BLE001 - the library raises no class of its own
        raise _bad_merges(vocabulary, merges, error) from None
    base = tokenizers.Tokenizer(model)
    base.pre_tokenizer = rules.build()
    if rules.is_byte_level:
        return Scheme(base, byte_level_bytes, adds_bos=rules.adds_bos)
    base.normalizer = normalizers.Replace(" ", SPACE_MARK)
    for token_id, token in enumerate(vocabulary.tokens):
        # Runs of line breaks are tokens without merges; Gemma adds them as whole tokens.
        if not token.strip("\n") and vocabulary.kinds[token_id] == TokenKind.NORMAL:
            vocabulary.kinds[token_id] = TokenKind.USER_DEFINED
    return Scheme(base, sentencepiece_bytes, always_adds_bos=name == "gemma4")


def _sentencepiece(vocabulary: Vocabulary) -> Scheme:
    adds_space = vocabulary.flag("add_space_prefix", True)
    unknown_id = vocabulary.token_id("unknown", 0)
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=merges_by_score(vocabulary),
        unk_token=None if unknown_id is None else vocabulary.tokens[unknown_id],
        fuse_unk=True,
        byte_fallback=True,
    )
    base = tokenizers.Tokenizer(model)
    escape = normalizers.Replace(" ", SPACE_MARK)
    base.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE_MARK), escape]) if adds_space else escape
    )
    if pieces_stay_within_words(vocabulary):
        # The same merges, but word by word: the model's work grows faster than a word's length.
        base.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(_WORDS), "isolated")
    return Scheme(
        base,
        sentencepiece_bytes,
        drops_leading_space=adds_space,
        bos_id=1,
        eos_id=2,
        adds_bos=True,
    )


def _word_piece(vocabulary: Vocabulary) -> Scheme:
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    strip_accents = vocabulary.flag("normalizer.strip_accents", lowercase)
    unknown_id = vocabulary.token_id("unknown", 100)
    if unknown_id is None:
        raise ModelFormatError(
            "expected the id of the unknown token, found none", part=PREFIX + "unknown_token_id"
        )
    base = tokenizers.Tokenizer(
        models.WordPiece(
            vocab=_hash_spelled(vocabulary),
            unk_token=vocabulary.tokens[unknown_id],
            max_input_chars_per_word=_MAX_WORD_LENGTH,
        )
    )
    base.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    base.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return Scheme(
        base,
        mark_word_piece_bytes,
        added_bytes=word_start_bytes,
        drops_leading_space=True,
        bos_id=101,
        wraps_in_cls_sep=True,
    )


def _unigram(vocabulary: Vocabulary) -> Scheme:
    adds_space = vocabulary.flag("add_space_prefix", True)
    charsmap = vocabulary.byte_array("precompiled_charsmap")
    unknown_id = vocabulary.token_id("unknown", 2)
    steps: list[normalizers.Normalizer] = []
    pieces = list(zip(vocabulary.tokens, vocabulary.scores(), strict=True))
    with library_errors(PREFIX + "precompiled_charsmap"):
        if charsmap:
            steps.append(normalizers.Precompiled(charsmap))
    with library_errors(PREFIX + "tokens"):
        model = models.Unigram(pieces, unknown_id, False)
    base = tokenizers.Tokenizer(model)
    if vocabulary.flag("remove_extra_whitespaces", False):
        steps.append(normalizers.Strip())
        steps.append(normalizers.Replace(tokenizers.Regex(" {2,}"), " "))
    if adds_space:
        # Also before a space, unlike the library's Metaspace; not before an empty text.
        steps.append(normalizers.Prepend(SPACE_MARK))
    steps.append(normalizers.Replace(" ", SPACE_MARK))
    base.normalizer = normalizers.Sequence(steps)
    return Scheme(
        base, sentencepiece_bytes, drops_leading_space=adds_space, eos_id=1, adds_eos=True
    )


BUILDERS: dict[str, Callable[[Vocabulary], Scheme]] = {
    "gpt2": _byte_pair,
    "gemma4": _gemma4,
    "llama": _sentencepiece,
    "bert": _word_piece,
    "t5": _unigram,
}
"""By `tokenizer.ggml.model`."""


def _hash_spelled(vocabulary: Vocabulary) -> dict[str, int]:
    """Token ids by the `##` spelling that the WordPiece model expects."""
    spelled = {}
    for token_id, token in enumerate(vocabulary.tokens):
        if vocabulary.kinds[token_id] != TokenKind.NORMAL:
            spelled[token] = token_id
        elif token.startswith(SPACE_MARK):
            spelled[token[len(SPACE_MARK) :]] = token_id
        else:
            spelled["##" + token] = token_id
    return spelled


def _bad_merges(
    vocabulary: Vocabulary, merges: list[tuple[str, str]], error: Exception
) -> ModelFormatError:
    for index, (left, right) in enumerate(merges):
        if not {left, right, left + right} <= vocabulary.ids.keys():
            return ModelFormatError(
                f"expected two tokens that join into a third, found {left!r} and {right!r}"
                f" at {index}",
                part=PREFIX + "merges",
            )
    return ModelFormatError(str(error), part=PREFIX + "merges")
