"""A model that cannot spell control tokens.

Control tokens are entries of the vocabulary like any other.  Byte-level BPE reaches them by no
merge, but a Unigram model knows no merges: to it `</s>` is a word.  Plain text must not become
control tokens, so for plain text such entries are renamed to what nobody can write.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from typing import Any

import tokenizers
from tokenizers.models import Model


def spells(matcher: tokenizers.Tokenizer, texts: Collection[str], ids: Collection[int]) -> bool:
    """Whether one of the texts, as plain text, gives one of the ids."""
    # Alone and inside a word: SentencePiece spells the start of a text differently.
    samples = [sample for text in texts for sample in (text, f"a{text}a")]
    encodings = matcher.encode_batch_fast(samples, add_special_tokens=False)
    return any(not set(ids).isdisjoint(encoding.ids) for encoding in encodings)


def without(model: Model, texts: Collection[str]) -> Model:
    """The same model, ids and all, with the entries of these texts out of reach.

    The model's unknown token stays: it is what the model says, not what a text spells.
    """
    state = json.loads(model.__getstate__())
    renamed = {text: f"\U000f0000{secrets.token_hex(16)}" for text in texts}
    renamed.pop(_unknown_token(state), None)
    vocabulary = state["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with scores, by id
        state["vocab"] = [[renamed.get(piece, piece), score] for piece, score in vocabulary]
    else:
        state["vocab"] = {renamed.get(text, text): index for text, index in vocabulary.items()}
    if "merges" in state:
        state["merges"] = [merge for merge in state["merges"] if _is_kept(merge, renamed)]
    rebuilt = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "model": state}))
    plain: Model = rebuilt.model
    return plain


def _unknown_token(state: dict[str, Any]) -> str:
    if state.get("unk_id") is not None:
        return str(state["vocab"][state["unk_id"]][0])
    return state.get("unk_token") or ""


def _is_kept(merge: list[str], renamed: dict[str, str]) -> bool:
    left, right = merge
    return not {left, right, left + right} & renamed.keys()
