"""From the tokenizer keys of a GGUF file to a Codec.

Five kinds of vocabulary, by `tokenizer.ggml.model`: `gpt2` (byte-level BPE), `gemma4` (BPE over
SentencePiece spellings), `llama` (SentencePiece BPE, by scores), `bert` (WordPiece) and `t5`
(SentencePiece Unigram).  Behaviour and defaults: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.tokenizer.byte_pairs import BytePairs
from quintet.tokenizer.codec import CONTROL_KINDS, Codec
from quintet.tokenizer.end_of_generation import SPELLINGS, end_of_generation_ids
from quintet.tokenizer.gguf_schemes import BUILDERS, Scheme
from quintet.tokenizer.vocabulary import PREFIX, TokenKind, Vocabulary, ids_of_kinds

# Tokens besides EOS that end what the model says; a file break ends a code model's answer.
_ENDING_KEYS = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")


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
    build = BUILDERS.get(model)
    if build is None:
        raise UnsupportedModelError("tokenizer", model, BUILDERS)
    vocabulary = Vocabulary(metadata)
    scheme = build(vocabulary)
    plain_words = _plain_words(vocabulary, scheme)
    special = _special_ids(vocabulary, scheme)
    named = [special["eos"], *map(vocabulary.token_id, _ENDING_KEYS)]
    eog_ids = end_of_generation_ids(vocabulary.ids, named, plain_words)
    for token_id in eog_ids:
        if vocabulary.tokens[token_id] in SPELLINGS:
            vocabulary.kinds[token_id] = TokenKind.CONTROL  # some files call them normal
    prefix_ids, suffix_ids = _affixes(vocabulary, scheme, special)
    return Codec(
        tokens=vocabulary.tokens,
        ids=vocabulary.ids,
        kinds=bytes(vocabulary.kinds),
        base=scheme.base,
        added=_added_tokens(vocabulary, str(metadata.get("general.name", ""))),
        spelled_bytes=scheme.spelled_bytes,
        added_bytes=scheme.added_bytes,
        drops_leading_space=scheme.drops_leading_space,
        bos_id=special["bos"],
        eos_id=special["eos"],
        eog_ids=eog_ids,
        prefix_ids=prefix_ids,
        suffix_ids=suffix_ids,
        # Unigram with both around it is XLM-RoBERTa, whose pairs have the end twice between them.
        between_ids=suffix_ids * (2 if model == "t5" and prefix_ids else 1),
        chat_templates=_chat_templates(metadata),
    )


def _special_ids(vocabulary: Vocabulary, scheme: Scheme) -> dict[str, int | None]:
    bos_default = vocabulary.token_id("cls", scheme.bos_id)
    return {
        "bos": vocabulary.token_id("bos", bos_default),
        "eos": vocabulary.token_id("eos", scheme.eos_id),
        # The specification's own misspelling; both are in use.
        "sep": vocabulary.token_id("seperator", vocabulary.token_id("separator", 102)),
    }


def _affixes(
    vocabulary: Vocabulary, scheme: Scheme, special: Mapping[str, int | None]
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
    for token_id in ids_of_kinds(vocabulary.kinds, [*CONTROL_KINDS, TokenKind.USER_DEFINED]):
        kind = vocabulary.kinds[token_id]
        text = vocabulary.tokens[token_id]
        strips_right = is_phi3 and text not in ("<unk>", "<s>", "<|endoftext|>")
        added.append(
            AddedToken(text, normalized=False, special=kind in CONTROL_KINDS, rstrip=strips_right)
        )
    return added


def _plain_words(vocabulary: Vocabulary, scheme: Scheme) -> set[str]:
    """End-of-generation spellings that are normal tokens and the result of some merge."""
    suspects = {
        text
        for text in SPELLINGS
        if vocabulary.kinds[vocabulary.ids.get(text, -1)] == TokenKind.NORMAL
        and text in vocabulary.ids
    }
    if not suspects:
        return set()
    if isinstance(scheme.base, BytePairs):
        return {text for text in suspects if scheme.base.makes(vocabulary.ids[text])}
    return {text for left, right in vocabulary.merge_pairs() if (text := left + right) in suspects}


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
