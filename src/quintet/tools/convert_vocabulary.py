"""The vocabulary of a Hugging Face directory as the tokenizer keys of GGUF.

Two kinds: byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`).  What is written is read back
and must cut a text of many scripts as the original does; a tokenizer that cannot be said in
GGUF's keys is refused.

Source: docs/gguf.md of ggml-org/ggml, section "Tokenizer".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.formats.gguf_writer import Field
from quintet.tokenizer import Tokenizer
from quintet.tokenizer.codec import Codec
from quintet.tokenizer.json_codec import read_json_codec
from quintet.tokenizer.pretokenizers import pre_tokenization, supported_names
from quintet.tokenizer.vocabulary import PREFIX, TokenKind

_MAX_FILE_SIZE = 256 << 20
# Tried first, since many names mean the same: the ones llama.cpp gives to the best-known models.
_PREFERRED = ("llama-bpe", "qwen2", "gpt-2", "smollm", "tekken", "gpt-4o", "deepseek-v3")

# Words, contractions, numbers, white space, code, accents, scripts with and without spaces: what
# pre-tokenizers treat differently.  In NFC, since GGUF has no key for normalisation.
_PROBE = (
    "Hello, World! I'm sure we'LL meet in 2024, don't you?  3.14159 + 1234567890 = x_1\n\n\n"
    "\tdef f(a, b):\r\n        return {'key': [a**2, b // 3]}  # ok...   \n"
    "HTTPServer camelCase ÀÉÎõü straße ΑΒΓ αβγ привет мир שלום עולם مرحبا नमस्ते สวัสดี "
    "你好,世界。 こんにちは カタカナ 한국어 \U0001f680\U0001f469\u200d\U0001f4bb "
    "— “quotes” €50 ½ ² "
    "a\u00a0b  \u3000 c <tag attr=\"1\"/> (((nested))) --flag=/usr/bin 'tis 'S'T 12 345 6789\n \n x"
)


def vocabulary_fields(directory: Path, vocab_size: int) -> dict[str, Field]:
    """
    The tokenizer keys of a model.

    Args:
        directory: with tokenizer.json and what belongs to it.
        vocab_size: rows of the embedding; ids beyond the tokenizer's become unused tokens.

    Raises:
        ModelNotFoundError: no tokenizer.json.
        ModelFormatError: a file breaks its format, or has more tokens than `vocab_size`.
        UnsupportedModelError: a tokenizer of another kind.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise ModelNotFoundError(f"{directory} has no tokenizer.json")
    codec = read_json_codec(path)
    stored = _read_object(path)
    model = stored.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise UnsupportedModelError("tokenizer to convert", str(kind), ("BPE",))
    if len(codec.tokens) > vocab_size:
        raise ModelFormatError(
            f"expected at most {vocab_size} tokens, the rows of the embedding, "
            f"found {len(codec.tokens)}",
            path=path,
        )
    tokens = [token or f"[PAD{index}]" for index, token in enumerate(codec.tokens)]
    tokens += [f"[PAD{index}]" for index in range(len(tokens), vocab_size)]
    kinds = list(codec.kinds) + [TokenKind.UNUSED] * (vocab_size - len(codec.kinds))
    merges = _merges(model, path)
    is_byte_level = "ByteLevel" in json.dumps(stored.get("decoder"))
    if is_byte_level:
        own = _byte_level(stored, merges, path)
    else:
        own = _sentencepiece(stored, codec, tokens, kinds, merges)
    fields = {
        **own,
        PREFIX + "tokens": Field.of(tokens),
        PREFIX + "token_type": Field.of(np.array(kinds, np.int32)),
        **_special_fields(codec, directory),
    }
    _check_reading_back(fields, directory)
    return fields


def _byte_level(
    stored: Mapping[str, Any], merges: Sequence[tuple[str, str]], path: Path
) -> dict[str, Field]:
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(stored))
    ignores_merges = bool(stored["model"].get("ignore_merges", False))
    return {
        PREFIX + "model": Field.of("gpt2"),
        PREFIX + "pre": Field.of(_pre_tokenizer_name(tokenizer, ignores_merges, path)),
        PREFIX + "merges": Field.of([" ".join(merge) for merge in merges]),
    }


def _pre_tokenizer_name(tokenizer: tokenizers.Tokenizer, ignores_merges: bool, path: Path) -> str:
    """The known pre-tokenizer that cuts the probe as the file's own does."""
    own = tokenizer.pre_tokenizer
    if own is not None:
        wanted = [piece for piece, _ in own.pre_tokenize_str(_PROBE)]
        for name in (*_PREFERRED, *supported_names()):
            known = pre_tokenization(name)
            if known.ignores_merges != ignores_merges or not known.is_byte_level:
                continue
            if [piece for piece, _ in known.build().pre_tokenize_str(_PROBE)] == wanted:
                return name
    raise UnsupportedModelError("pre-tokenizer", f"that of {path}", supported_names())


def _sentencepiece(
    stored: Mapping[str, Any],
    codec: Codec,
    tokens: Sequence[str],
    kinds: list[int],
    merges: Sequence[tuple[str, str]],
) -> dict[str, Field]:
    """
    SentencePiece merges the pair whose whole has the highest score.  A tokenizer.json has lost
    the scores and kept their order: that in which wholes first appear among the merges.
    """
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
    if unknown in scores:
        kinds[list(tokens).index(unknown)] = TokenKind.UNKNOWN
    return {
        PREFIX + "model": Field.of("llama"),
        PREFIX + "pre": Field.of("default"),
        PREFIX + "scores": Field.of(np.array([scores[token] for token in tokens], np.float32)),
        PREFIX + "add_space_prefix": Field.of(codec.drops_leading_space),
    }


def _special_fields(codec: Codec, directory: Path) -> dict[str, Field]:
    fields = {}
    for name, token_id in (("bos", codec.bos_id), ("eos", codec.eos_id)):
        if token_id is not None:
            fields[f"{PREFIX}{name}_token_id"] = Field.of(token_id)
    config = _optional_object(directory / "tokenizer_config.json")
    ids = {token: token_id for token_id, token in enumerate(codec.tokens) if token}
    for name, key in (("unk_token", "unknown"), ("pad_token", "padding")):
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and text in ids:
            fields[f"{PREFIX}{key}_token_id"] = Field.of(ids[text])
    fields[PREFIX + "add_bos_token"] = Field.of(codec.prefix_ids == (codec.bos_id,))
    fields[PREFIX + "add_eos_token"] = Field.of(codec.suffix_ids == (codec.eos_id,))
    for name, template in codec.chat_templates.items():
        suffix = "" if name == "default" else f".{name}"
        fields[f"tokenizer.chat_template{suffix}"] = Field.of(template)
    return fields


def _check_reading_back(fields: Mapping[str, Field], directory: Path) -> None:
    """What was made must cut text as the original does."""
    original = Tokenizer.from_file(directory)
    made = Tokenizer.from_gguf({key: field.value for key, field in fields.items()})
    for text in (_PROBE, "", " ", "Hello", " two  spaces "):
        if made.encode(text) != original.encode(text):
            raise UnsupportedModelError(
                "tokenizer to convert", f"that of {directory}: GGUF's keys cut text otherwise"
            )


def _merges(model: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """Pairs, which older files write with a space between."""
    merges = []
    for merge in model.get("merges") or ():
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_text, pair)):
            raise ModelFormatError(
                f"expected a pair, found {merge!r:.80}", path=path, part="merges"
            )
        merges.append((pair[0], pair[1]))
    return merges


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _optional_object(path: Path) -> Mapping[str, Any]:
    return _read_object(path) if path.is_file() else {}


def _read_object(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _MAX_FILE_SIZE:
        raise ModelFormatError(f"expected at most {_MAX_FILE_SIZE} bytes", path=path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"not valid JSON: {error}", path=path) from None
    if not isinstance(value, dict):
        raise ModelFormatError(f"expected an object, found {type(value).__name__}", path=path)
    return value
