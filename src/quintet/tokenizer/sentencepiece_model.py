"""SentencePiece's own file, and what Hugging Face puts beside it, as the tokenizer keys of GGUF.

Source: sentencepiece, src/sentencepiece_model.proto, for the fields; transformers'
tokenization_llama.py for the flags of tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats import protobuf
from quintet.tokenizer.end_of_generation import MORE_END_KEYS
from quintet.tokenizer.neighbours import chat_templates, generation_eos, read_json, token_text
from quintet.tokenizer.vocabulary import PREFIX, TokenKind

MODEL_NAME = "tokenizer.model"

_MAX_BYTES = 64 << 20
_UNIGRAM, _BPE = 1, 2
_KINDS = {_UNIGRAM: "t5", _BPE: "llama"}
# Whose ids are those of the file; others move some.
_CLASSES = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "T5Tokenizer")
_MAX_ADDED = 1 << 16
_NAMED = {"bos": 41, "eos": 42, "unknown": 40, "padding": 43}  # field numbers of TrainerSpec
_CONFIG_NAMES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
_ADDED_SCORE = -1000.0  # never merged to: they are cut out of the text


@dataclass
class _Model:
    """What is read of a ModelProto; defaults are the format's."""

    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    kind: int = _UNIGRAM
    marks_behind: bool = False
    charsmap: bytes = b""
    adds_space: bool = True
    removes_spaces: bool = True
    escapes_spaces: bool = True
    ids: dict[str, int] = field(
        default_factory=lambda: {"unknown": 0, "bos": 1, "eos": 2, "padding": -1}
    )


def sentencepiece_keys(directory: Path) -> dict[str, Any]:
    """
    The tokenizer keys of a directory with a tokenizer.model.

    Raises:
        ModelNotFoundError: it cannot be opened.
        ModelFormatError: a file breaks its format.
        UnsupportedModelError: a kind of model, or rules, that GGUF cannot say.
    """
    path = directory / MODEL_NAME
    model = _read(path)
    config = read_json(directory / "tokenizer_config.json")
    _refuse_other_rules(model, config, path)
    _add_tokens(model, directory, config)
    ids = {token: token_id for token_id, token in enumerate(model.tokens)}
    keys: dict[str, Any] = {
        "model": _KINDS[model.kind],
        "pre": "default",
        "tokens": model.tokens,
        "scores": np.array(model.scores, np.float32),
        "token_type": np.array(model.kinds, np.int32),
        "add_space_prefix": model.adds_space and config.get("add_prefix_space") is not False,
        "add_bos_token": _flag(config, "add_bos_token", model.kind == _BPE),
        "add_eos_token": _flag(config, "add_eos_token", model.kind == _UNIGRAM),
    }
    if model.kind == _UNIGRAM:
        keys["remove_extra_whitespaces"] = model.removes_spaces
        if model.charsmap:
            keys["precompiled_charsmap"] = np.frombuffer(model.charsmap, np.uint8)
    for name, theirs in _CONFIG_NAMES.items():
        token_id = ids.get(token_text(config, f"{theirs}_token"), model.ids[name])
        if 0 <= token_id < len(model.tokens):
            keys[f"{name}_token_id"] = token_id
    ends = generation_eos(directory, len(model.tokens))
    others = sorted(set(ends) - {keys.get("eos_token_id")})
    keys |= {
        f"{name}_token_id": token_id for name, token_id in zip(MORE_END_KEYS, others, strict=False)
    }
    templates = chat_templates(directory, config)
    return {PREFIX + name: value for name, value in keys.items()} | {
        "tokenizer.chat_template" + ("" if name == "default" else f".{name}"): template
        for name, template in templates.items()
    }


def _read(path: Path) -> _Model:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ModelFormatError(f"expected at most {_MAX_BYTES} bytes, found {size}", path=path)
    model = _Model()
    for number, value in protobuf.fields(path.read_bytes(), path=path):
        if number == 1:
            _read_piece(model, protobuf.message(value, path=path), path)
        elif number == 2:
            _read_trainer(model, protobuf.message(value, path=path), path)
        elif number == 3:
            _read_normalizer(model, protobuf.message(value, path=path), path)
    if not model.tokens:
        raise ModelFormatError("expected at least one piece, found none", path=path)
    return model


def _read_piece(model: _Model, piece: bytes, path: Path) -> None:
    token, score, kind = "", 0.0, int(TokenKind.NORMAL)
    for number, value in protobuf.fields(piece, path=path):
        if number == 1:
            token = protobuf.text(value, path=path)
        elif number == 2:
            score = protobuf.float32(value, path=path)
        elif number == 3:
            kind = protobuf.int32(value, path=path)
    if not TokenKind.NORMAL <= kind <= TokenKind.BYTE:
        raise ModelFormatError(f"expected a kind of piece from 1 to 6, found {kind}", path=path)
    model.tokens.append(token)
    model.scores.append(score)
    model.kinds.append(kind)


def _read_trainer(model: _Model, spec: bytes, path: Path) -> None:
    for number, value in protobuf.fields(spec, path=path):
        if number == 3:
            model.kind = protobuf.int32(value, path=path)
        elif number == 24:
            model.marks_behind = bool(protobuf.int32(value, path=path))
        for name, own in _NAMED.items():
            if number == own:
                model.ids[name] = protobuf.int32(value, path=path)


def _read_normalizer(model: _Model, spec: bytes, path: Path) -> None:
    for number, value in protobuf.fields(spec, path=path):
        if number == 2:
            model.charsmap = protobuf.message(value, path=path)
        elif number == 3:
            model.adds_space = bool(protobuf.int32(value, path=path))
        elif number == 4:
            model.removes_spaces = bool(protobuf.int32(value, path=path))
        elif number == 5:
            model.escapes_spaces = bool(protobuf.int32(value, path=path))


def _refuse_other_rules(model: _Model, config: Mapping[str, Any], path: Path) -> None:
    name = str(config.get("tokenizer_class") or _CLASSES[0]).removesuffix("Fast")
    if name not in _CLASSES:
        raise UnsupportedModelError(f"tokenizer class beside {MODEL_NAME}", name, _CLASSES)
    if model.kind not in _KINDS:
        raise UnsupportedModelError("SentencePiece model", str(model.kind), ("Unigram", "BPE"))
    unlike = {
        "spaces that are not escaped": not model.escapes_spaces,
        "spaces behind words": model.marks_behind,
        "BPE with a normalisation": model.kind == _BPE and bool(model.charsmap),
        "BPE without extra spaces": model.kind == _BPE and model.removes_spaces,
        "Unigram with bytes": model.kind == _UNIGRAM and TokenKind.BYTE in model.kinds,
    }
    for what, is_there in unlike.items():
        if is_there:
            raise UnsupportedModelError("SentencePiece model", f"{what} in {path}")


def _add_tokens(model: _Model, directory: Path, config: Mapping[str, Any]) -> None:
    """The tokens that Hugging Face adds, some in the place of pieces."""
    added: dict[int, tuple[str, int]] = {}
    for text, token_id in read_json(directory / "added_tokens.json").items():
        added[_checked_id(token_id, text)] = (text, TokenKind.USER_DEFINED)
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, Mapping):
        raise ModelFormatError("expected tokens by their ids", part="added_tokens_decoder")
    for number, entry in decoder.items():
        content = entry.get("content") if isinstance(entry, Mapping) else None
        if not isinstance(content, str) or not number.isdecimal() or len(number) > 9:
            raise ModelFormatError(
                f"expected a token by its id, found {entry!r:.80}", part="added_tokens_decoder"
            )
        kind: int = TokenKind.CONTROL if entry.get("special") else TokenKind.USER_DEFINED
        added[_checked_id(int(number), content)] = (content, kind)
    for token_id, (content, kind) in sorted(added.items()):
        if token_id > len(model.tokens) + _MAX_ADDED:
            raise ModelFormatError(f"expected ids without large gaps, found {token_id}")
        while len(model.tokens) <= token_id:
            model.tokens.append(f"[PAD{len(model.tokens)}]")
            model.scores.append(_ADDED_SCORE)
            model.kinds.append(TokenKind.UNUSED)
        is_special = model.kinds[token_id] in (TokenKind.UNKNOWN, TokenKind.CONTROL)
        if not (is_special and model.tokens[token_id] == content):
            model.kinds[token_id] = kind
        model.tokens[token_id] = content


def _checked_id(value: object, text: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelFormatError(f"expected a token id, found {value!r:.40}", part=text)
    return value


def _flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    value = config.get(name)
    return value if isinstance(value, bool) else default
