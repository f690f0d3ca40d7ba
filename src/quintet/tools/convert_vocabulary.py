"""The vocabulary of a Hugging Face directory as the tokenizer keys of GGUF.

From tokenizer.json: byte-level BPE (`gpt2`), SentencePiece BPE (`llama`), WordPiece (`bert`) and
Unigram (`t5`); without one, from SentencePiece's tokenizer.model.  What is written is read back and
must cut a text of many scripts as the original does; a tokenizer that cannot be said in GGUF's keys
is refused.

Source: docs/gguf.md of ggml-org/ggml, section "Tokenizer".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.formats.gguf_writer import Field
from quintet.tokenizer import Tokenizer
from quintet.tokenizer.codec import Codec
from quintet.tokenizer.end_of_generation import MORE_END_KEYS
from quintet.tokenizer.json_codec import read_json_codec
from quintet.tokenizer.neighbours import read_json, token_text
from quintet.tokenizer.sentencepiece_model import MODEL_NAME, sentencepiece_keys
from quintet.tokenizer.vocabulary import PREFIX, TokenKind
from quintet.tools.vocabulary_kinds import BUILDERS, PROBE, Made, UnsayableError

_NAME = "general.name"
_PHI3 = re.compile("(phi)-?3", re.IGNORECASE)
_MAX_SPECIAL = 256  # control tokens tried out; some vocabularies have thousands in reserve
# Keys of tokens that nothing else gives: ours, and tokenizer_config.json's.
_NAMED = {"unknown": "unk_token", "padding": "pad_token", "mask": "mask_token"}


def vocabulary_fields(
    directory: Path, vocab_size: int, name: str | None = None
) -> dict[str, Field]:
    """
    The tokenizer keys of a model, and its name.

    Args:
        directory: with tokenizer.json, or tokenizer.model, and what belongs to it.
        vocab_size: rows of the embedding; ids beyond the tokenizer's become unused tokens, and
            added tokens beyond the rows are left out.
        name: the model's; None for the directory's.

    Raises:
        ModelNotFoundError: neither file is there.
        ModelFormatError: a file breaks its format, or has more tokens than `vocab_size`.
        UnsupportedModelError: a tokenizer that GGUF cannot say.
    """
    name = name or directory.resolve().name
    path = directory / "tokenizer.json"
    if path.is_file():
        codec = read_json_codec(path)
        keys = _of_json(path, codec, vocab_size)
        name = _telling_name(name, any(token.rstrip for token in codec.added))
    elif (directory / MODEL_NAME).is_file():
        found = sentencepiece_keys(directory)
        keys = {key: Field.of(value) for key, value in found.items()}
        keys |= _padded(
            found[PREFIX + "tokens"],
            found[PREFIX + "token_type"].tolist(),
            found[PREFIX + "scores"].tolist(),
            vocab_size,
            directory / MODEL_NAME,
        )
    else:
        raise ModelNotFoundError(f"{directory} has no tokenizer.json and no {MODEL_NAME}")
    fields = {_NAME: Field.of(name), **keys}
    original = Tokenizer.from_file(directory)
    unsaid = sorted(original.eog_ids - _read(fields).eog_ids)
    if len(unsaid) > len(MORE_END_KEYS):
        raise UnsupportedModelError("ends of an answer to write as GGUF", str(unsaid))
    fields |= {
        f"{PREFIX}{key}_token_id": Field.of(token_id)
        for key, token_id in zip(MORE_END_KEYS, unsaid, strict=False)
    }
    _check_reading_back(original, _read(fields), directory)
    return fields


def _of_json(path: Path, codec: Codec, vocab_size: int) -> dict[str, Field]:
    stored = read_json(path)
    model = stored.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind not in BUILDERS:
        raise UnsupportedModelError("tokenizer to convert", str(kind), BUILDERS)
    try:
        made = BUILDERS[kind](stored, codec)
    except UnsayableError as error:
        raise UnsupportedModelError("tokenizer to convert", f"{error}, in {path}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"unexpected content: {error!r:.120}", path=path) from error
    fields = {PREFIX + key: Field.of(value) for key, value in made.keys.items()}
    fields |= _padded(made.tokens, made.kinds, made.scores, vocab_size, path)
    return {**fields, **_special_fields(codec, made, path.parent, vocab_size)}


def _padded(
    tokens: list[str], kinds: list[int], scores: list[float] | None, vocab_size: int, path: Path
) -> dict[str, Field]:
    """Spellings, kinds and scores, one of each per row of the embedding."""
    beyond = kinds[vocab_size:]
    if TokenKind.NORMAL in beyond or TokenKind.BYTE in beyond:
        raise ModelFormatError(
            f"expected at most {vocab_size} tokens, the rows of the embedding, found {len(tokens)}",
            path=path,
        )
    missing = range(len(tokens), vocab_size)
    texts = [token or f"[PAD{index}]" for index, token in enumerate(tokens[:vocab_size])]
    texts += [f"[PAD{index}]" for index in missing]
    all_kinds = [*kinds[:vocab_size], *[TokenKind.UNUSED] * len(missing)]
    fields = {
        PREFIX + "tokens": Field.of(texts),
        PREFIX + "token_type": Field.of(np.array(all_kinds, np.int32)),
    }
    if scores is not None:
        lowest = min(scores, default=0.0)
        padded = [*scores[:vocab_size], *[lowest] * len(missing)]
        fields[PREFIX + "scores"] = Field.of(np.array(padded, np.float32))
    return fields


def _special_fields(codec: Codec, made: Made, directory: Path, vocab_size: int) -> dict[str, Field]:
    ids: dict[str, int | None] = {"bos": codec.bos_id, "eos": codec.eos_id}
    for name, affix in (("bos", codec.prefix_ids), ("eos", codec.suffix_ids)):
        if len(affix) == 1 and ids[name] is None:
            ids[name] = affix[0]
    config = read_json(directory / "tokenizer_config.json")
    known = {token: token_id for token_id, token in enumerate(codec.tokens) if token}
    for name, key in _NAMED.items():
        ids[name] = known.get(token_text(config, key))
    ids["seperator"] = known.get(token_text(config, "sep_token"))  # the format's own spelling
    if made.wraps_in_cls_sep:
        if len(codec.prefix_ids) != 1 or len(codec.suffix_ids) != 1:
            raise UnsupportedModelError(
                "tokenizer to convert", "WordPiece without one token before a text and one behind"
            )
        ids["bos"] = ids["cls"] = codec.prefix_ids[0]
        ids["seperator"] = codec.suffix_ids[0]
    if made.unknown_id is not None:
        ids["unknown"] = made.unknown_id
    fields = {
        f"{PREFIX}{name}_token_id": Field.of(token_id)
        for name, token_id in ids.items()
        if token_id is not None and token_id < vocab_size
    }
    fields[PREFIX + "add_bos_token"] = Field.of(bool(codec.prefix_ids))
    fields[PREFIX + "add_eos_token"] = Field.of(bool(codec.suffix_ids))
    if codec.suffix_ids and codec.suffix_ids == (ids["seperator"],):
        fields[PREFIX + "add_sep_token"] = Field.of(True)
    for name, template in codec.chat_templates.items():
        suffix = "" if name == "default" else f".{name}"
        fields[f"tokenizer.chat_template{suffix}"] = Field.of(template)
    return fields


def _read(fields: Mapping[str, Field]) -> Tokenizer:
    return Tokenizer.from_gguf({key: field.value for key, field in fields.items()})


def _check_reading_back(original: Tokenizer, made: Tokenizer, directory: Path) -> None:
    """What was made must cut text as the original does.

    Raises:
        UnsupportedModelError: it does not.
    """
    texts = (PROBE, "", " ", "Hello", " two  spaces ")
    special = [original.token_text(token_id) for token_id in range(original.vocab_size)]
    special = [token for index, token in enumerate(special) if token and original.is_special(index)]
    if (
        any(made.encode(text) != original.encode(text) for text in texts)
        or (original.suffix_ids and made.between_ids != original.between_ids)
        or any(
            made.encode(text, parse_special=True) != original.encode(text, parse_special=True)
            for text in (f"{token}\nx y" for token in special[:_MAX_SPECIAL])
        )
    ):
        raise UnsupportedModelError(
            "tokenizer to convert", f"that of {directory}: GGUF's keys cut text otherwise"
        )


def _telling_name(name: str, strips_right: bool) -> str:
    """A name by which llama.cpp knows whether control tokens swallow the white space behind them:
    those of a model called Phi-3 do."""
    is_phi3 = _PHI3.search(name) is not None
    if strips_right and not is_phi3:
        return f"phi3-{name}"
    return _PHI3.sub(r"\1 3", name) if is_phi3 and not strips_right else name
