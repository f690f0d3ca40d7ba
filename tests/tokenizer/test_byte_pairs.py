"""Byte pairs against the `tokenizers` library's own model."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, trainers

from quintet import _native
from quintet.errors import ModelFormatError
from quintet.formats.string_array import StringArray
from quintet.tokenizer import Tokenizer
from quintet.tokenizer.pieces import byte_alphabet
from quintet.tokenizer.pretokenizers import pre_tokenization

from .vocabularies import CONTROL, KEY, NORMAL, USER_DEFINED, byte_level

CORPUS = [
    f"{word} {word}s {word.upper()} {number} don't {word}\u00e9 \u65e5\u672c {'ab' * number}\n"
    for number, word in enumerate(["the", "cat", "sat", "on", "mat", "and", "then", "another"])
]
PRE = {"gpt-2": False, "qwen2": False, "llama-bpe": True, "tekken": True}
CONTROLS = ("<|im_start|>", "<|im_end|>")


@functools.cache
def trained(pre: str, *, parse_special: bool = False) -> tokenizers.Tokenizer:
    """A vocabulary learnt from the corpus, cut as `pre` does."""
    rules = pre_tokenization(pre)
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=rules.ignores_merges))
    library.pre_tokenizer = rules.build()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=list(byte_alphabet().values()),
        special_tokens=[*CONTROLS],
        show_progress=False,
    )
    library.train_from_iterator(CORPUS, trainer)
    library.encode_special_tokens = not parse_special
    return library


@functools.cache
def ours(pre: str) -> Tokenizer:
    """The same as the keys of a GGUF file."""
    model = json.loads(trained(pre).to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    assert model["ignore_merges"] is PRE[pre]
    return Tokenizer.from_gguf(
        {
            KEY + "model": "gpt2",
            KEY + "pre": pre,
            KEY + "tokens": tokens,
            KEY + "add_bos_token": False,
            KEY + "token_type": [CONTROL if text in CONTROLS else NORMAL for text in tokens],
            KEY + "merges": [" ".join(merge) for merge in model["merges"]],
        }
    )


PARTS = st.sampled_from(["the", " cat", "ab", "'t", "\n", "  ", "12", "\u00e9", *CONTROLS])
TEXTS = st.lists(st.one_of(PARTS, st.text(max_size=8))).map("".join)


@pytest.mark.parametrize("pre", PRE)
@given(text=TEXTS)
@settings(max_examples=100, deadline=None)
def test_tokens_are_those_of_the_library(pre: str, text: str) -> None:
    """Any text gives the tokens that the library's model gives, control tokens or not."""
    library, tokenizer = trained(pre), ours(pre)
    plain = library.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, add_special=False) == plain
    special = trained(pre, parse_special=True).encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, add_special=False, parse_special=True) == special


@pytest.mark.parametrize("size", [1, 255, 10_000, 300_000])
def test_a_long_piece_is_merged_like_a_short_one(size: int) -> None:
    """One piece without any cut, of a length that a quadratic method would not end with."""
    text = ("ab" * size)[:size]
    expected = trained("qwen2").encode(text, add_special_tokens=False).ids
    assert ours("qwen2").encode(text, add_special=False) == expected


def test_the_leftmost_of_equal_merges_goes_first() -> None:
    """Of three equal characters the first two are merged."""
    keys = byte_level()
    keys[KEY + "tokens"] = [*keys[KEY + "tokens"], "aa"]
    keys[KEY + "token_type"] = [*keys[KEY + "token_type"], NORMAL]
    keys[KEY + "merges"] = ["a a"]
    tokenizer = Tokenizer.from_gguf(keys)
    ids = tokenizer.encode("aaa", add_special=False)
    assert [tokenizer.token_text(token_id) for token_id in ids] == ["aa", "a"]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_no_plain_text_gives_a_control_token(pre: str) -> None:
    """Neither by merges that spell one nor as a whole piece; user-defined tokens are cut out."""
    keys = byte_level(pre)
    new = {"ab": CONTROL, "bc": NORMAL, "<x>": USER_DEFINED}
    keys[KEY + "tokens"] = [*keys[KEY + "tokens"], *new]
    keys[KEY + "token_type"] = [*keys[KEY + "token_type"], *new.values()]
    keys[KEY + "merges"] = ["a b", "b c"]
    tokenizer = Tokenizer.from_gguf(keys)

    def texts(text: str, **options: Any) -> list[str]:
        ids = tokenizer.encode(text, add_special=False, **options)
        return [tokenizer.token_text(token_id) for token_id in ids]

    assert texts("ab") == ["a", "b"]
    assert texts("ab<x>abc") == ["a", "b", "<x>", "a", "bc"]
    assert texts("ab", parse_special=True) == ["ab"]


@pytest.mark.parametrize("merge", ["ab", "a zz", "zz a", "a ~"])
def test_a_merge_of_what_is_no_token_is_refused(merge: str) -> None:
    """Both halves and their join must be tokens; the key is named."""
    with pytest.raises(ModelFormatError, match=KEY + "merges"):
        Tokenizer.from_gguf(byte_level(merges=["h e", merge]))


def test_a_token_that_is_not_utf8_is_refused() -> None:
    """The token is named by its place."""
    keys = byte_level()
    keys[KEY + "tokens"] = StringArray.of([*keys[KEY + "tokens"], "\udcff"])
    keys[KEY + "token_type"] = [*keys[KEY + "token_type"], NORMAL]
    with pytest.raises(ModelFormatError, match=r"expected UTF-8.* 265"):
        Tokenizer.from_gguf(keys)


def test_ids_are_found_by_spelling() -> None:
    """Every token by its text, and nothing else."""
    tokenizer = ours("qwen2")
    for token_id in range(tokenizer.vocab_size):
        assert tokenizer.token_to_id(tokenizer.token_text(token_id)) == token_id
    for text in ("", "no such token", "\ud800", "\udcff"):
        assert tokenizer.token_to_id(text) is None


@given(texts=st.lists(st.text(max_size=12)))
@settings(deadline=None)
def test_strings_are_found_at_their_first_place(texts: list[str]) -> None:
    """As in a list, and the first that is there twice is known."""
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    finder = StringArray.of(texts).finder
    for text in [*texts, "not there"]:
        expected = texts.index(text) if text in texts else -1
        assert finder.find(text.encode()) == expected
    again = [place for place, text in enumerate(texts) if text in texts[:place]]
    expected_pair = (texts.index(texts[again[0]]), again[0]) if again else (-1, -1)
    assert finder.duplicate() == expected_pair


@pytest.mark.parametrize(
    "arguments",
    [
        {"ids": [0], "offsets": [(0, 99)]},
        {"ids": [0], "offsets": [(2, 1)]},
        {"ids": [0], "offsets": [(-1, 1)]},
        {"ids": [0], "offsets": [3]},
        {"ids": [0], "offsets": []},
        {"ids": [2], "offsets": [(0, 1)]},
        {"ids": [-1], "offsets": [(0, 1)]},
        {"ids": [0], "offsets": [(0, 1)], "is_hidden": b"\0"},
    ],
)
def test_native_arguments_are_checked(arguments: dict[str, Any]) -> None:
    """Nothing outside the text or the tables is read."""
    tokens = StringArray.of(byte_alphabet().values())
    empty = b"", np.zeros(1, np.int64)
    pairs = _native.BytePairs(tokens.finder, *empty, list(byte_alphabet().values()))
    rest = {"known": [7], "ignores_merges": False, "is_hidden": b"", **arguments}
    with pytest.raises((ValueError, TypeError)):
        pairs.encode("abc", **rest)


@pytest.mark.parametrize("starts", [[0, 99], [0, 4], [9, 0], [-9, 0], []])
def test_positions_outside_the_bytes_are_refused(starts: list[int]) -> None:
    """Every string lies inside the bytes, behind its length."""
    with pytest.raises(ValueError, match="starts"):
        _native.StringIndex(bytes(9), np.array(starts, np.int64))
