"""
Byte-level BPE trained on the generated text.

The pre-tokenizer is Qwen2's (tokenizer.json of Qwen/Qwen2-0.5B; llama.cpp calls it `qwen2`): every
digit stands alone.  All 256 bytes are in the vocabulary, so any text can be encoded.  The special
tokens come last, as they do in Qwen's vocabulary.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import corpus
from template import training_text
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED_TOKENS = [
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>",
]  # fmt: skip
VOCAB_SIZE = 2048


def train_tokenizer(seed: int, num_samples: int = 60_000) -> Tokenizer:
    """A tokenizer of exactly VOCAB_SIZE ids, special tokens included."""
    rng = random.Random(seed)
    texts = (training_text(corpus.draw(rng)) for _ in range(num_samples))
    pieces = (piece for text in texts for piece in _SPECIAL.split(text) if piece)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(CONTROL_TOKENS) - len(USER_DEFINED_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in USER_DEFINED_TOKENS])
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise RuntimeError(f"expected {VOCAB_SIZE} tokens, trained {tokenizer.get_vocab_size()}")
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


_SPECIAL = re.compile("|".join(re.escape(t) for t in CONTROL_TOKENS + USER_DEFINED_TOKENS))
