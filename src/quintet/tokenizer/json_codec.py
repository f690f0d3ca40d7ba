"""From a Hugging Face tokenizer.json, and the files beside it, to a Codec.

Source: the `tokenizers` library's file format; transformers, tokenization_utils_base.py, for
which file says what.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers

from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.tokenizer.codec import Codec, library_errors
from quintet.tokenizer.end_of_generation import end_of_generation_ids
from quintet.tokenizer.neighbours import (
    chat_templates,
    generation_eos,
    read_json,
    read_text,
    token_text,
)
from quintet.tokenizer.pieces import (
    byte_level_bytes,
    hash_word_piece_bytes,
    sentencepiece_bytes,
    word_start_bytes,
)
from quintet.tokenizer.vocabulary import TokenKind

# Ids may skip some numbers, but a file must not make us allocate for ids it does not define.
_MAX_UNUSED_IDS = 1 << 16
_SUPPORTED_DECODERS = ("ByteLevel", "ByteFallback", "Metaspace", "WordPiece")


def read_json_codec(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> Codec:
    """The Codec of a tokenizer.json.

    Args:
        path: the tokenizer.json; its neighbours tokenizer_config.json, generation_config.json
            and chat_template.jinja are read when they exist.
        config: replaces tokenizer_config.json.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: a file breaks its format.
        UnsupportedModelError: a decoder not known here.
    """
    path = Path(path)
    if config is None:
        config = read_json(path.with_name("tokenizer_config.json"))
    tokenizer = _load(path)
    tokens, added = _tokens(tokenizer, path)
    ids = {token: token_id for token_id, token in enumerate(tokens) if token}
    kinds = bytearray(TokenKind.NORMAL if token else TokenKind.UNUSED for token in tokens)
    for token in added:
        kinds[ids[token.content]] = TokenKind.CONTROL if token.special else TokenKind.USER_DEFINED
    prefix_ids, suffix_ids = _affixes(tokenizer, ids, config)
    bos_id = ids.get(token_text(config, "bos_token"))
    eos_id = ids.get(token_text(config, "eos_token"))
    added_ids = {token.content: ids[token.content] for token in added}
    decoding = _decoding(tokenizer)
    return Codec(
        tokens=tokens,
        kinds=bytes(kinds),
        base=tokenizer,
        added=added,
        spelled_bytes=decoding.spelled_bytes,
        added_bytes=decoding.added_bytes,
        drops_leading_space=decoding.drops_leading_space,
        bos_id=bos_id,
        eos_id=eos_id,
        eog_ids=end_of_generation_ids(
            added_ids, [eos_id, *generation_eos(path.parent, len(tokens))]
        ),
        prefix_ids=prefix_ids,
        suffix_ids=suffix_ids,
        between_ids=_between(tokenizer, prefix_ids, suffix_ids),
        chat_templates=chat_templates(path.parent, config),
    )


def _load(path: Path) -> tokenizers.Tokenizer:
    text = read_text(path)
    if text is None:
        raise ModelNotFoundError(f"no tokenizer file at {path}")
    with library_errors(str(path)):
        tokenizer = tokenizers.Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _tokens(
    tokenizer: tokenizers.Tokenizer, path: Path
) -> tuple[list[str], list[tokenizers.AddedToken]]:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ModelFormatError("expected at least one token, found none", path=path)
    size = max(vocabulary.values()) + 1
    if size > len(vocabulary) + _MAX_UNUSED_IDS:
        raise ModelFormatError(
            f"expected ids without large gaps, found {len(vocabulary)} tokens up to id {size - 1}",
            path=path,
        )
    tokens = [""] * size
    for token, token_id in vocabulary.items():
        tokens[token_id] = token
    by_id = tokenizer.get_added_tokens_decoder()
    return tokens, [by_id[token_id] for token_id in sorted(by_id)]


def _affixes(
    tokenizer: tokenizers.Tokenizer, ids: Mapping[str, int], config: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the post-processor puts around a text, or what the config asks for by name."""
    if "add_bos_token" in config or "add_eos_token" in config:
        affixes = []
        for name in ("bos", "eos"):
            token_id = ids.get(token_text(config, f"{name}_token"))
            is_added = config.get(f"add_{name}_token") is True and token_id is not None
            affixes.append((token_id,) if is_added and token_id is not None else ())
        return affixes[0], affixes[1]
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    return (), ()


def _between(
    tokenizer: tokenizers.Tokenizer, prefix: tuple[int, ...], suffix: tuple[int, ...]
) -> tuple[int, ...]:
    """What the post-processor puts between the texts of a pair; the end of the first if nothing."""
    around = tuple(tokenizer.encode("", "").ids)
    end = len(around) - len(suffix)
    if around[: len(prefix)] == prefix and around[end:] == suffix and end > len(prefix):
        return around[len(prefix) : end]
    return suffix


@dataclass(frozen=True)
class _Decoding:
    """How spellings become text, as the file's decoder says."""

    spelled_bytes: Callable[[str], bytes]
    added_bytes: Callable[[str], bytes] = str.encode
    drops_leading_space: bool = False


def _decoding(tokenizer: tokenizers.Tokenizer) -> _Decoding:
    steps: list[dict[str, Any]] = []
    if tokenizer.decoder is not None:
        decoder = json.loads(tokenizer.decoder.__getstate__())
        steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    by_type = {step["type"]: step for step in steps}
    if "ByteLevel" in by_type:
        return _Decoding(byte_level_bytes)
    if "Metaspace" in by_type:
        drops_space = by_type["Metaspace"].get("prepend_scheme") != "never"
        return _Decoding(sentencepiece_bytes, drops_leading_space=drops_space)
    if "ByteFallback" in by_type:
        drops_space = by_type.get("Strip", {}).get("start", 0) > 0
        return _Decoding(sentencepiece_bytes, drops_leading_space=drops_space)
    if "WordPiece" in by_type:
        prefix, cleanup = by_type["WordPiece"]["prefix"], by_type["WordPiece"]["cleanup"]
        return _Decoding(
            partial(hash_word_piece_bytes, prefix=prefix, cleanup=cleanup),
            added_bytes=partial(word_start_bytes, cleanup=cleanup),
            drops_leading_space=True,
        )
    raise UnsupportedModelError(
        "tokenizer decoder", ", ".join(by_type) or "none", _SUPPORTED_DECODERS
    )
