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
from quintet.tokenizer.pieces import (
    byte_level_bytes,
    hash_word_piece_bytes,
    sentencepiece_bytes,
    word_start_bytes,
)
from quintet.tokenizer.vocabulary import TokenKind

_MAX_FILE_SIZE = 256 << 20
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
        config = _read_json(path.with_name("tokenizer_config.json"))
    tokenizer = _load(path)
    tokens, added = _tokens(tokenizer, path)
    ids = {token: token_id for token_id, token in enumerate(tokens) if token}
    kinds = bytearray(TokenKind.NORMAL if token else TokenKind.UNUSED for token in tokens)
    for token in added:
        kinds[ids[token.content]] = TokenKind.CONTROL if token.special else TokenKind.USER_DEFINED
    prefix_ids, suffix_ids = _affixes(tokenizer, ids, config)
    bos_id = ids.get(_token_text(config, "bos_token"))
    eos_id = ids.get(_token_text(config, "eos_token"))
    added_ids = {token.content: ids[token.content] for token in added}
    generation = _read_json(path.with_name("generation_config.json"))
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
        eog_ids=end_of_generation_ids(added_ids, [eos_id, *_generation_eos(generation, tokens)]),
        prefix_ids=prefix_ids,
        suffix_ids=suffix_ids,
        between_ids=_between(tokenizer, prefix_ids, suffix_ids),
        chat_templates=_chat_templates(path, config),
    )


def _load(path: Path) -> tokenizers.Tokenizer:
    text = _read_text(path)
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
            token_id = ids.get(_token_text(config, f"{name}_token"))
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


def _token_text(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if isinstance(value, Mapping):  # an added token written out with its flags
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _generation_eos(generation: Mapping[str, Any], tokens: list[str]) -> list[int]:
    value = generation.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [
        token_id for token_id in values if isinstance(token_id, int) and 0 <= token_id < len(tokens)
    ]


def _chat_templates(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """By name; a file of its own goes before what the config holds."""
    value = config.get("chat_template")
    templates: dict[str, str] = {}
    if isinstance(value, str):
        templates["default"] = value
    elif isinstance(value, list):
        for entry in value:
            if not (
                isinstance(entry, Mapping)
                and isinstance(entry.get("name"), str)
                and isinstance(entry.get("template"), str)
            ):
                raise ModelFormatError("expected a list of named templates", part="chat_template")
            templates[entry["name"]] = entry["template"]
    own_file = _read_text(path.with_name("chat_template.jinja"))
    if own_file is not None:
        templates["default"] = own_file
    return templates


def _read_json(path: Path) -> Mapping[str, Any]:
    text = _read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"not valid JSON: {error}", path=path) from None
    if not isinstance(value, dict):
        raise ModelFormatError(f"expected an object, found {type(value).__name__}", path=path)
    return value


def _read_text(path: Path) -> str | None:
    """The file's text, or None when there is no such file."""
    try:
        if path.stat().st_size > _MAX_FILE_SIZE:
            raise ModelFormatError(f"expected at most {_MAX_FILE_SIZE} bytes", path=path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"expected UTF-8: {error.reason}", path=path) from None
