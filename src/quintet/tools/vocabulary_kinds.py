"""The kinds of tokenizers in a tokenizer.json, each said in GGUF's keys.

Source: the `tokenizers` library's file format; docs/gguf.md of ggml-org/ggml, section "Tokenizer".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from quintet.tokenizer.codec import Codec
from quintet.tokenizer.pieces import SPACE_MARK
from quintet.tokenizer.pretokenizers import pre_tokenization, supported_names
from quintet.tokenizer.vocabulary import TokenKind

# Tried first, since many names mean the same: the ones llama.cpp gives to the best-known models.
_PREFERRED = ("llama-bpe", "qwen2", "gpt-2", "smollm", "tekken", "gpt-4o", "deepseek-v3")

# Words, contractions, numbers, white space, code, accents, scripts with and without spaces: what
# pre-tokenizers treat differently.  In NFC, since GGUF has no key for normalisation.
PROBE = (
    "Hello, World! I'm sure we'LL meet in 2024, don't you?  3.14159 + 1234567890 = x_1\n\n\n"
    "\tdef f(a, b):\r\n        return {'key': [a**2, b // 3]}  # ok...   \n"
    "HTTPServer camelCase ÀÉÎõü straße ΑΒΓ αβγ привет мир שלום עולם مرحبا नमस्ते สวัสดี "
    "你好,世界。 こんにちは カタカナ 한국어 \U0001f680\U0001f469\u200d\U0001f4bb "
    "— “quotes” €50 ½ ² "
    "a\u00a0b  \u3000 c <tag attr=\"1\"/> (((nested))) --flag=/usr/bin 'tis 'S'T 12 345 6789\n \n x"
)
_MAX_WORD_LENGTH = 100  # what readers of WordPiece have


class UnsayableError(Exception):
    """A rule that GGUF has no key for; the message names it."""


@dataclass(frozen=True)
class Made:
    """
    A vocabulary as GGUF has it.

    Args:
        keys: without their prefix.
        tokens, kinds, scores: by id.
        unknown_id: of the token for what cannot be spelled.
        wraps_in_cls_sep: every text stands between two tokens of its own, as BERT's.
    """

    keys: Mapping[str, Any]
    tokens: list[str]
    kinds: list[int]
    scores: list[float] | None = None
    unknown_id: int | None = None
    wraps_in_cls_sep: bool = False


def _byte_pair(stored: Mapping[str, Any], codec: Codec) -> Made:
    merges = _merges(stored["model"])
    if "ByteLevel" not in json.dumps(stored.get("decoder")):
        return _sentencepiece(stored, codec, merges)
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(stored))
    ignores_merges = bool(stored["model"].get("ignore_merges", False))
    keys = {
        "model": "gpt2",
        "pre": _pre_tokenizer_name(tokenizer, ignores_merges),
        "merges": [" ".join(merge) for merge in merges],
    }
    return Made(keys, codec.tokens, list(codec.kinds))


def _pre_tokenizer_name(tokenizer: tokenizers.Tokenizer, ignores_merges: bool) -> str:
    """The known pre-tokenizer that cuts the probe as the file's own does."""
    own = tokenizer.pre_tokenizer
    if own is not None:
        wanted = [piece for piece, _ in own.pre_tokenize_str(PROBE)]
        for name in (*_PREFERRED, *supported_names()):
            known = pre_tokenization(name)
            if known.ignores_merges != ignores_merges or not known.is_byte_level:
                continue
            if [piece for piece, _ in known.build().pre_tokenize_str(PROBE)] == wanted:
                return name
    raise UnsayableError("a pre-tokenizer without a name")


def _sentencepiece(stored: Mapping[str, Any], codec: Codec, merges: list[tuple[str, str]]) -> Made:
    """
    SentencePiece merges the pair whose whole has the highest score.  A tokenizer.json has lost
    the scores and kept their order: that in which wholes first appear among the merges.
    """
    tokens, kinds = codec.tokens, list(codec.kinds)
    scores = dict.fromkeys(tokens, 0.0)
    wholes = dict.fromkeys(left + right for left, right in merges)
    for rank, whole in enumerate(wholes):
        scores[whole] = -float(rank + 1)
    lowest = -float(len(wholes) + 1)
    for index, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            kinds[index] = TokenKind.BYTE
        elif kinds[index] == TokenKind.NORMAL and token not in wholes:
            scores[token] = lowest  # a single character: never merged to
    unknown = stored["model"].get("unk_token")
    unknown_id = tokens.index(unknown) if unknown in scores else None
    if unknown_id is not None:
        kinds[unknown_id] = TokenKind.UNKNOWN
    keys = {"model": "llama", "pre": "default", "add_space_prefix": codec.drops_leading_space}
    return Made(keys, tokens, kinds, [scores[token] for token in tokens], unknown_id)


def _word_piece(stored: Mapping[str, Any], codec: Codec) -> Made:
    """Words begin with U+2581 in GGUF; in tokenizer.json it is ## that continues one."""
    model, normalizer = stored["model"], stored.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        raise UnsayableError(f"WordPiece behind the normalizer {normalizer.get('type')}")
    for name, wanted in (("clean_text", True), ("handle_chinese_chars", True)):
        if normalizer.get(name, wanted) != wanted:
            raise UnsayableError(f"WordPiece with {name}: {normalizer[name]}")
    if model.get("max_input_chars_per_word", _MAX_WORD_LENGTH) != _MAX_WORD_LENGTH:
        raise UnsayableError(f"words of up to {model['max_input_chars_per_word']} characters")
    continues = model.get("continuing_subword_prefix", "##")
    tokens = []
    for token, kind in zip(codec.tokens, codec.kinds, strict=True):
        if kind != TokenKind.NORMAL:
            tokens.append(token)
        elif token.startswith(continues):
            tokens.append(token[len(continues) :])
        else:
            tokens.append(SPACE_MARK + token)
    lowercase = bool(normalizer.get("lowercase", True))
    strips = normalizer.get("strip_accents")
    keys: dict[str, Any] = {"model": "bert", "pre": "default"}
    if not lowercase:
        keys["normalizer.lowercase"] = False
    if strips is not None and bool(strips) != lowercase:
        keys["normalizer.strip_accents"] = bool(strips)
    return Made(
        keys,
        tokens,
        list(codec.kinds),
        unknown_id=codec.tokens.index(model["unk_token"]),
        wraps_in_cls_sep=True,
    )


def _unigram(stored: Mapping[str, Any], codec: Codec) -> Made:
    model = stored["model"]
    if model.get("byte_fallback"):
        raise UnsayableError("Unigram with bytes")
    scores = [float(score) for _, score in model["vocab"]]
    kinds = list(codec.kinds)
    unknown_id = int(model["unk_id"])
    kinds[unknown_id] = TokenKind.UNKNOWN
    steps = _steps(stored.get("normalizer"), "normalizers")
    keys: dict[str, Any] = {
        "model": "t5",
        "pre": "default",
        "add_space_prefix": codec.drops_leading_space,
        "remove_extra_whitespaces": _removes_spaces(stored, steps),
    }
    charsmaps = [step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"]
    if charsmaps:
        charsmap = base64.b64decode(charsmaps[0] or "", validate=True)
        keys["precompiled_charsmap"] = np.frombuffer(charsmap, np.uint8)
    scores += [0.0] * (len(codec.tokens) - len(scores))
    return Made(keys, codec.tokens, kinds, scores, unknown_id)


def _removes_spaces(stored: Mapping[str, Any], steps: list[Mapping[str, Any]]) -> bool:
    """Whether runs of spaces count as one."""
    pre_tokenizers = _steps(stored.get("pre_tokenizer"), "pretokenizers")
    if any(step["type"] in ("WhitespaceSplit", "Whitespace") for step in pre_tokenizers):
        return True
    return any(
        step["type"] == "Replace" and step.get("pattern", {}).get("Regex") == " {2,}"
        for step in steps
    )


def _steps(stage: Any, inner: str) -> list[Mapping[str, Any]]:
    """The steps of a stage, which may be one or a sequence."""
    if not stage:
        return []
    return list(stage[inner]) if stage["type"] == "Sequence" else [stage]


BUILDERS: dict[str, Callable[[Mapping[str, Any], Codec], Made]] = {
    "BPE": _byte_pair,
    "WordPiece": _word_piece,
    "Unigram": _unigram,
}
"""By the type of model."""


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs, which older files write with a space between."""
    merges = []
    for merge in model.get("merges") or ():
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(half, str) for half in pair)
        ):
            raise ValueError(f"expected a pair, found {merge!r:.80}")
        merges.append((pair[0], pair[1]))
    return merges
