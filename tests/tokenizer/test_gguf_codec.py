"""Tokenizer keys of GGUF files: what is refused, and that the key at fault is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet.errors import ModelFormatError, QuintetError, UnsupportedModelError
from quintet.tokenizer import Tokenizer

from .vocabularies import KEY, byte_level, sentencepiece, unigram, word_piece

KINDS = {
    "gpt2": byte_level(),
    "llama": sentencepiece(),
    "bert": word_piece(),
    "t5": unigram(precompiled_charsmap=[]),
}


@pytest.mark.parametrize("model", ["no_vocab", "none", "rwkv", "plamo2", "made-up"])
def test_unknown_kind_is_refused_by_name(model: str) -> None:
    """A kind of tokenizer that is not ours is named, with the ones that are."""
    with pytest.raises(UnsupportedModelError, match=f"tokenizer '{model}'.*gpt2"):
        Tokenizer.from_gguf({**byte_level(), KEY + "model": model})


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("gpt2", "model"),
        ("gpt2", "tokens"),
        ("gpt2", "merges"),
        ("llama", "scores"),
        ("t5", "scores"),
        ("t5", "tokens"),
    ],
)
def test_missing_key_is_named(kind: str, key: str) -> None:
    """Without a required key the error says which."""
    metadata = dict(KINDS[kind])
    del metadata[KEY + key]
    with pytest.raises(ModelFormatError, match=KEY + key):
        Tokenizer.from_gguf(metadata)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("gpt2", "model", 7),
        ("gpt2", "pre", 7),
        ("gpt2", "tokens", "abc"),
        ("gpt2", "tokens", 7),
        ("gpt2", "tokens", []),
        ("gpt2", "tokens", [1, 2]),
        ("gpt2", "token_type", [1]),
        ("gpt2", "token_type", [7] * 265),
        ("gpt2", "token_type", [-1] * 265),
        ("gpt2", "token_type", [1.5] * 265),
        ("gpt2", "token_type", "1" * 265),
        ("gpt2", "merges", ["he"]),
        ("gpt2", "merges", ["h e", "no such"]),
        ("gpt2", "merges", ["h x"]),
        ("gpt2", "merges", [""]),
        ("gpt2", "merges", [7]),
        ("gpt2", "bos_token_id", 265),
        ("gpt2", "eos_token_id", -1),
        ("gpt2", "eos_token_id", True),
        ("gpt2", "eot_token_id", 1 << 40),
        ("gpt2", "eom_token_id", "x"),
        ("gpt2", "add_bos_token", 1),
        ("llama", "scores", [0.0]),
        ("llama", "scores", ["x"] * 297),
        ("llama", "scores", [float("nan")] * 297),
        ("llama", "add_space_prefix", "yes"),
        ("llama", "unknown_token_id", 1 << 32),
        ("bert", "unknown_token_id", 99),
        ("bert", "seperator_token_id", 99),
        ("bert", "normalizer.lowercase", 3),
        ("t5", "precompiled_charsmap", [1, 2, 3]),
        ("t5", "precompiled_charsmap", ["x"]),
        ("t5", "remove_extra_whitespaces", None.__class__),
    ],
)
def test_wrong_value_is_named(kind: str, key: str, value: Any) -> None:
    """A value of the wrong type, length or range is an error that names its key."""
    metadata = {**KINDS[kind], KEY + key: value}
    if key == "scores" and len(value) > 1:
        metadata[KEY + key] = value[:1] * len(metadata[KEY + "tokens"])
    with pytest.raises(ModelFormatError, match=KEY + key):
        Tokenizer.from_gguf(metadata)


def test_duplicate_token_is_refused() -> None:
    """Two ids with one spelling make ids ambiguous; both are named."""
    metadata = byte_level()
    metadata[KEY + "tokens"][7] = metadata[KEY + "tokens"][3]
    with pytest.raises(ModelFormatError, match=r"tokens.* at 3 and 7"):
        Tokenizer.from_gguf(metadata)


def test_bos_that_is_added_must_exist() -> None:
    """A vocabulary that puts BOS before every text must say which token that is."""
    metadata = byte_level(add_bos_token=True)
    del metadata[KEY + "bos_token_id"]
    with pytest.raises(ModelFormatError, match="bos_token_id"):
        Tokenizer.from_gguf(metadata)


def test_empty_token_gets_a_name() -> None:
    """An empty spelling, as some converters write, is no obstacle."""
    metadata = byte_level()
    metadata[KEY + "tokens"][264] = ""
    assert Tokenizer.from_gguf(metadata).token_text(264) == "[EMPTY_264]"


def test_missing_token_types_mean_normal_tokens() -> None:
    """Old files carry no types; known end-of-turn spellings are still control tokens."""
    metadata = byte_level()
    del metadata[KEY + "token_type"]
    tokenizer = Tokenizer.from_gguf(metadata)
    end = tokenizer.token_to_id("<|im_end|>")
    assert end in tokenizer.eog_ids
    assert tokenizer.is_special(end)
    assert end not in tokenizer.encode("<|im_end|>")


def test_missing_pre_tokenizer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Files from before the key are read as llama.cpp reads them, not without a word."""
    metadata = byte_level()
    del metadata[KEY + "pre"]
    assert Tokenizer.from_gguf(metadata).encode("hello")
    assert "tokenizer.ggml.pre" in caplog.text


def test_normal_token_named_as_eos_stays_a_word() -> None:
    """A file may end on an ordinary token; text goes on containing it."""
    dot = byte_level(eos_token_id=ord("."))
    tokenizer = Tokenizer.from_gguf(dot)
    assert ord(".") in tokenizer.eog_ids
    assert tokenizer.encode("a.", add_special=False) == [ord("a"), ord(".")]
    assert tokenizer.decode([ord("a"), ord(".")]) == "a."


def test_end_tokens_named_by_the_file_end_generation() -> None:
    """End of turn, end of message and file breaks count beside EOS."""
    names = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
    keys = {f"{name}_token_id": 100 + index for index, name in enumerate(names)}
    eog_ids = Tokenizer.from_gguf(byte_level(**keys)).eog_ids
    assert eog_ids == {100, 101, 102, 103, 104, 262, 263}


def test_harmony_message_end_does_not_end_the_answer() -> None:
    """Where <|return|> and <|call|> exist, <|end|> only ends a message."""
    metadata = byte_level()
    metadata[KEY + "tokens"][-4:-1] = ["<|return|>", "<|call|>", "<|end|>"]
    tokenizer = Tokenizer.from_gguf(metadata)
    ending = {tokenizer.token_text(token_id) for token_id in tokenizer.eog_ids}
    assert {"<|return|>", "<|call|>"} <= ending
    assert "<|end|>" not in ending


def test_overlong_piece_is_refused() -> None:
    """A SentencePiece token of thousands of characters would cost its square at loading."""
    metadata = sentencepiece()
    metadata[KEY + "tokens"][-2] = "a" * 5000
    with pytest.raises(ModelFormatError, match="512"):
        Tokenizer.from_gguf(metadata)


def test_broken_character_map_is_an_error_and_no_panic() -> None:
    """A precompiled map whose table points outside itself fails as the model's fault."""
    table = [4, 0, 0, 0, 255, 255, 255, 255, 0]
    with pytest.raises(ModelFormatError, match="inconsistent"):
        Tokenizer.from_gguf(unigram(precompiled_charsmap=table)).encode("hello")


def test_named_chat_templates_are_found() -> None:
    """The usual template and named ones are kept apart; a named one must be text."""
    keys = {"tokenizer.chat_template": "a", "tokenizer.chat_template.tool_use": "b"}
    tokenizer = Tokenizer.from_gguf({**byte_level(), **keys})
    assert dict(tokenizer.chat_templates) == {"default": "a", "tool_use": "b"}
    with pytest.raises(ModelFormatError, match=r"tokenizer\.chat_template\.x"):
        Tokenizer.from_gguf({**byte_level(), "tokenizer.chat_template.x": 7})


def test_broken_chat_template_does_not_stop_other_uses() -> None:
    """A template that is not Jinja2 is an error when a chat wants it, not when text is encoded."""
    tokenizer = Tokenizer.from_gguf({**byte_level(), "tokenizer.chat_template": "{% if"})
    assert tokenizer.encode("hello")
    with pytest.raises(ModelFormatError, match="chat_template"):
        tokenizer.encode_chat([{"role": "user", "content": "hello"}])


def test_numpy_arrays_and_lists_are_the_same() -> None:
    """Arrays come as NumPy arrays from our reader and as lists from others."""
    metadata = sentencepiece()
    arrays = {
        **metadata,
        KEY + "scores": np.array(metadata[KEY + "scores"], np.float32),
        KEY + "token_type": np.array(metadata[KEY + "token_type"], np.int32),
        KEY + "tokens": tuple(metadata[KEY + "tokens"]),
    }
    text = "hello </s> world"
    assert Tokenizer.from_gguf(arrays).encode(text) == Tokenizer.from_gguf(metadata).encode(text)


_junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(-5, 300), st.text(max_size=3), st.floats()), max_size=5),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_metadata_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    """Whatever one key is replaced with, the outcome is a tokenizer or an error of ours."""
    metadata = dict(KINDS[kind])
    key = data.draw(st.sampled_from(sorted(metadata)))
    value = metadata[key]
    if isinstance(value, list) and value and data.draw(st.booleans()):
        changed = list(value)
        for _ in range(data.draw(st.integers(1, 3))):
            index = data.draw(st.integers(0, len(changed) - 1))
            changed[index] = data.draw(st.one_of(st.sampled_from(value), _junk))
        metadata[key] = changed[: data.draw(st.integers(0, len(changed)))]
    else:
        metadata[key] = data.draw(_junk)
    try:
        tokenizer = Tokenizer.from_gguf(metadata)
        ids = tokenizer.encode("hello <s> \u20ac world", parse_special=True)
        tokenizer.decode(ids)
    except QuintetError:
        return
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)
