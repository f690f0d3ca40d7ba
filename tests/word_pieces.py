"""A small WordPiece vocabulary with BERT's rules, and texts for it."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

WORDS = ["the", "cat", "sat", "on", "a", "mat", "red", "##s", "dog", "ran", "where", "is", "?", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
TEXTS = [
    "The cat sat on the mat.",
    "Dogs ran",
    "a red mat",
    "where is the cat? " * 6,
    "[SEP] the dog",
]


def write_word_pieces(directory: Path) -> None:
    """A tokenizer.json with BERT's rules and a small vocabulary."""
    ids = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    tokenizer.add_special_tokens(VOCABULARY[:4])
    # As some published files have it; it is not ours to cut or to pad.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8, pad_token="[PAD]")
    tokenizer.save(str(directory / "tokenizer.json"))


def ids_of(text: str) -> list[int]:
    """What is expected of the tokenizer: text never becomes a control token."""
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return [2, *tokenizer.encode(text, add_special_tokens=False).ids, 3]
