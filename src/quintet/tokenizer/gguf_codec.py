"""From the tokenizer keys of a GGUF file to a Codec.

Five kinds of vocabulary, by `tokenizer.ggml.model`: `gpt2` (byte-level BPE), `gemma4` (BPE over
SentencePiece spellings), `llama` (SentencePiece BPE, by scores), `bert` (WordPiece) and `t5`
(SentencePiece Unigram).  Behaviour and defaults: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.tokenizer.codec import CONTROL_KINDS, Codec, library_errors
from quintet.tokenizer.end_of_generation import SPELLINGS, end_of_generation_ids
from quintet.tokenizer.pieces import (
    SPACE_MARK,
    byte_level_bytes,
    mark_word_piece_bytes,
    sentencepiece_bytes,
)
from quintet.tokenizer.pretokenizers import pre_tokenization
from quintet.tokenizer.sentencepiece import merges_by_score
from quintet.tokenizer.vocabulary import PREFIX, TokenKind, Vocabulary

# Longer words are unknown: WordPiece tries every prefix of a word.  As in BERT.
_MAX_WORD_LENGTH = 100


def read_codec(metadata: Mapping[str, Any]) -> Codec:
    """The Codec of a GGUF file.

    Args:
        metadata: key to value; arrays are any sequences.

    Raises:
        ModelFormatError: a key is missing, of the wrong type or inconsistent; it is named.
        UnsupportedModelError: an unknown `tokenizer.ggml.model` or `tokenizer.ggml.pre`.
    """
    model = metadata.get(PREFIX + "model")
    if not isinstance(model, str):
        raise ModelFormatError("expected the tokenizer's kind, found none", part=PREFIX + "model")
    build = _BUILDERS.get(model)
    if build is None:
        raise UnsupportedModelError("tokenizer", model, _BUILDERS)
    vocabulary = Vocabulary(metadata)
    scheme = build(vocabulary)
    plain_words = _plain_words(vocabulary)
    special = _special_ids(vocabulary, scheme)
    eog_ids = end_of_generation_ids(
        vocabulary.ids, [special["eos"], special["eot"], special["eom"]], plain_words
    )
    for token_id in eog_ids:
        vocabulary.kinds[token_id] = TokenKind.CONTROL  # some files call them normal
    prefix_ids, suffix_ids = _affixes(vocabulary, scheme, special)
    return Codec(
        tokens=vocabulary.tokens,
        kinds=bytes(vocabulary.kinds),
        base=scheme.base,
        added=_added_tokens(vocabulary, str(metadata.get("general.name", ""))),
        spelled_bytes=scheme.spelled_bytes,
        drops_leading_space=scheme.drops_leading_space,
        bos_id=special["bos"],
        eos_id=special["eos"],
        eog_ids=eog_ids,
        prefix_ids=prefix_ids,
        suffix_ids=suffix_ids,
        chat_templates=_chat_templates(metadata),
    )


@dataclass(frozen=True)
class _Scheme:
    """One way of tokenizing, and its defaults for what the file leaves out."""

    base: tokenizers.Tokenizer
    spelled_bytes: Callable[[str], bytes]
    drops_leading_space: bool = False
    bos_id: int | None = None
    eos_id: int | None = None
    adds_bos: bool = False
    adds_eos: bool = False
    always_adds_bos: bool = False
    wraps_in_cls_sep: bool = False


def _byte_pair(vocabulary: Vocabulary) -> _Scheme:
    return _byte_pair_named(vocabulary, vocabulary.text("pre", "default"))


def _gemma4(vocabulary: Vocabulary) -> _Scheme:
    return _byte_pair_named(vocabulary, "gemma4")


def _byte_pair_named(vocabulary: Vocabulary, name: str) -> _Scheme:
    rules = pre_tokenization(name)
    merges = [_halves(merge) for merge in vocabulary.strings("merges", required=True)]
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
        return _Scheme(base, byte_level_bytes, adds_bos=rules.adds_bos)
    base.normalizer = normalizers.Replace(" ", SPACE_MARK)
    for token_id, token in enumerate(vocabulary.tokens):
        # Runs of line breaks are tokens without merges; Gemma adds them as whole tokens.
        if not token.strip("\n") and vocabulary.kinds[token_id] == TokenKind.NORMAL:
            vocabulary.kinds[token_id] = TokenKind.USER_DEFINED
    return _Scheme(base, sentencepiece_bytes, always_adds_bos=name == "gemma4")


def _sentencepiece(vocabulary: Vocabulary) -> _Scheme:
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
    return _Scheme(
        base,
        sentencepiece_bytes,
        drops_leading_space=adds_space,
        bos_id=1,
        eos_id=2,
        adds_bos=True,
    )


def _word_piece(vocabulary: Vocabulary) -> _Scheme:
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
    return _Scheme(
        base,
        mark_word_piece_bytes,
        drops_leading_space=True,
        bos_id=101,
        wraps_in_cls_sep=True,
    )


def _unigram(vocabulary: Vocabulary) -> _Scheme:
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
    if steps:
        base.normalizer = normalizers.Sequence(steps)
    base.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE_MARK, prepend_scheme="always" if adds_space else "never", split=False
    )
    return _Scheme(
        base, sentencepiece_bytes, drops_leading_space=adds_space, eos_id=1, adds_eos=True
    )


_BUILDERS: dict[str, Callable[[Vocabulary], _Scheme]] = {
    "gpt2": _byte_pair,
    "gemma4": _gemma4,
    "llama": _sentencepiece,
    "bert": _word_piece,
    "t5": _unigram,
}


def _special_ids(vocabulary: Vocabulary, scheme: _Scheme) -> dict[str, int | None]:
    bos_default = vocabulary.token_id("cls", scheme.bos_id)
    return {
        "bos": vocabulary.token_id("bos", bos_default),
        "eos": vocabulary.token_id("eos", scheme.eos_id),
        "eot": vocabulary.token_id("eot"),
        "eom": vocabulary.token_id("eom"),
        # The specification's own misspelling; both are in use.
        "sep": vocabulary.token_id("seperator", vocabulary.token_id("separator", 102)),
    }


def _affixes(
    vocabulary: Vocabulary, scheme: _Scheme, special: Mapping[str, int | None]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    adds_bos = vocabulary.flag("add_bos_token", scheme.adds_bos) or scheme.always_adds_bos
    adds_eos = vocabulary.flag("add_eos_token", scheme.adds_eos)
    wanted = [("bos", adds_bos), ("eos", adds_eos)]
    if scheme.wraps_in_cls_sep:
        wanted = [("bos", True), ("sep", True)]
    affixes: list[tuple[int, ...]] = []
    for name, is_added in wanted:
        token_id = special[name]
        if is_added and token_id is None:
            raise ModelFormatError(
                "expected a token id, since this token is added to every text, found none",
                part=f"{PREFIX}{'seperator' if name == 'sep' else name}_token_id",
            )
        affixes.append((token_id,) if is_added and token_id is not None else ())
    return affixes[0], affixes[1]


def _added_tokens(vocabulary: Vocabulary, model_name: str) -> list[AddedToken]:
    # The files do not say which tokens swallow the white space after them; Phi-3's do.
    # Source: llama.cpp, which goes by the model's name too.
    is_phi3 = any(name in model_name.lower() for name in ("phi-3", "phi3"))
    added = []
    for token_id, kind in enumerate(vocabulary.kinds):
        if kind not in CONTROL_KINDS and kind != TokenKind.USER_DEFINED:
            continue
        text = vocabulary.tokens[token_id]
        strips_right = is_phi3 and text not in ("<unk>", "<s>", "<|endoftext|>")
        added.append(
            AddedToken(text, normalized=False, special=kind in CONTROL_KINDS, rstrip=strips_right)
        )
    return added


def _plain_words(vocabulary: Vocabulary) -> set[str]:
    """End-of-generation spellings that are normal tokens and the result of some merge."""
    suspects = {
        text
        for text in SPELLINGS
        if vocabulary.kinds[vocabulary.ids.get(text, -1)] == TokenKind.NORMAL
        and text in vocabulary.ids
    }
    if not suspects:
        return set()
    merged = {merge.replace(" ", "") for merge in vocabulary.strings("merges")}
    return suspects & merged


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


def _halves(merge: str) -> tuple[str, str]:
    cut = merge.find(" ", 1)  # a space at the start belongs to the left half
    if cut < 0:
        raise ModelFormatError(
            f"expected two tokens with a space between, found {merge!r}", part=PREFIX + "merges"
        )
    return merge[:cut], merge[cut + 1 :]


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


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    key = "tokenizer.chat_template"
    templates = {}
    for name, value in metadata.items():
        if name == key or name.startswith(key + "."):
            if not isinstance(value, str):
                raise ModelFormatError(
                    f"expected a string, found {type(value).__name__}", part=name
                )
            templates[name[len(key) + 1 :] or "default"] = value
    return templates
