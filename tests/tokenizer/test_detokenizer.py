"""Incremental detokenizing: exact, and never half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet.tokenizer import Detokenizer, Tokenizer

from .vocabularies import byte_level, sentencepiece, unigram, word_piece

KINDS = {
    "byte-level": Tokenizer.from_gguf(byte_level()),
    "sentencepiece": Tokenizer.from_gguf(sentencepiece()),
    "no space": Tokenizer.from_gguf(sentencepiece(add_space_prefix=False)),
    "word pieces": Tokenizer.from_gguf(word_piece()),
    "unigram": Tokenizer.from_gguf(unigram()),
}


def pushed(tokenizer: Tokenizer, ids: Sequence[int], **options: object) -> list[str]:
    """What comes out token by token, the flush last."""
    detokenizer = Detokenizer(tokenizer, **options)  # type: ignore[arg-type]
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(data=st.data(), skip_special=st.booleans())
def test_pushes_and_flush_are_the_decoded_text(
    kind: str, data: st.DataObject, skip_special: bool
) -> None:
    """Any ids, also those of broken UTF-8, give the same text one by one as at once."""
    tokenizer = KINDS[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    parts = pushed(tokenizer, ids, skip_special=skip_special)
    assert "".join(parts) == tokenizer.decode(ids, skip_special=skip_special)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=30))
def test_any_bytes_decode_like_python_decodes_them(data: bytes) -> None:
    """Byte tokens of arbitrary bytes become Python's own lenient decoding."""
    text = data.decode("utf-8", errors="replace")
    assert KINDS["byte-level"].decode(list(data)) == text
    assert "".join(pushed(KINDS["byte-level"], list(data))) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_no_push_holds_half_a_character(text: str) -> None:
    """Byte by byte, each character comes out whole, with its last byte and not before."""
    parts = pushed(KINDS["byte-level"], list(text.encode()))
    expected = [part for char in text for part in [*[""] * (len(char.encode()) - 1), char]]
    assert parts == [*expected, ""]


def test_emoji_split_over_tokens_comes_out_once(vocabulary: Callable[[str], Tokenizer]) -> None:
    """R15: an emoji of several tokens appears with the last of them."""
    tokenizer = vocabulary("llama-bpe")
    ids = tokenizer.encode("\U0001f9d1\u200d\U0001f680\U0001faa9", add_special=False)
    parts = pushed(tokenizer, ids)
    assert len(ids) > 4
    assert "\ufffd" not in "".join(parts)
    assert "".join(parts) == "\U0001f9d1\u200d\U0001f680\U0001faa9"


def test_cut_character_is_flushed_as_a_replacement() -> None:
    """R15: output cut inside a character ends in U+FFFD, not in an error."""
    assert pushed(KINDS["byte-level"], list("a€".encode()[:-1])) == ["a", "", "", "\ufffd"]


def test_leading_space_belongs_to_an_answer_that_follows_a_prompt() -> None:
    """SentencePiece's first space is dropped at the start of a text, not after a prompt."""
    tokenizer = KINDS["sentencepiece"]
    hello = tokenizer.encode("hello", add_special=False)
    assert "".join(pushed(tokenizer, hello)) == "hello"
    assert "".join(pushed(tokenizer, hello, prompt_ids=hello)) == " hello"
    assert "".join(pushed(tokenizer, hello, prompt_ids=[tokenizer.bos_id])) == "hello"


def test_control_tokens_are_left_out_or_spelled() -> None:
    """Control tokens are no part of the text unless asked for."""
    tokenizer = KINDS["byte-level"]
    ids = tokenizer.encode("a<|im_end|>b", parse_special=True)
    assert "".join(pushed(tokenizer, ids)) == "ab"
    assert "".join(pushed(tokenizer, ids, skip_special=False)) == "a<|im_end|>b"
