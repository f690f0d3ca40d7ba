"""Named pre-tokenizers: where they cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet.errors import UnsupportedModelError
from quintet.tokenizer import Tokenizer
from quintet.tokenizer.pieces import byte_alphabet
from quintet.tokenizer.pretokenizers import pre_tokenization, supported_names

from .vocabularies import NORMAL, byte_level, metadata

BYTES = {char: byte for byte, char in byte_alphabet().items()}


def pieces(name: str, text: str) -> list[str]:
    """The pieces of a text that BPE sees, spelled in plain UTF-8."""
    found = [piece for piece, _ in pre_tokenization(name).build().pre_tokenize_str(text)]
    if not pre_tokenization(name).is_byte_level:
        return found
    return [bytes(BYTES[char] for char in piece).decode() for piece in found]


def test_unknown_name_is_refused_by_name() -> None:
    """An unknown pre-tokenizer is an error that names it and lists the known ones."""
    with pytest.raises(UnsupportedModelError, match=r"pre-tokenizer 'made-up'.*qwen2") as caught:
        Tokenizer.from_gguf(byte_level(pre="made-up"))
    assert caught.value.name == "made-up"


def test_llama_cpp_names_are_known() -> None:
    """The names of llama.cpp's list, by family."""
    known = set(supported_names())
    assert {"default", "llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"} <= known
    assert {"deepseek-llm", "deepseek-coder", "deepseek-v3", "deepseek-r1-qwen"} <= known
    assert {"falcon", "starcoder", "gpt-2", "refact", "command-r", "qwen2", "qwen35"} <= known
    assert {"stablelm2", "olmo", "dbrx", "smaug-bpe", "poro-chat", "chatglm-bpe", "glm4"} <= known
    assert {"viking", "jais", "jais-2", "tekken", "smollm", "codeshell", "bloom"} <= known
    assert {"gpt3-finnish", "exaone", "exaone4", "chameleon", "minerva-7b", "megrez"} <= known
    assert {"gpt-4o", "superbpe", "trillion", "bailingmoe", "llama4", "seed-coder"} <= known
    assert {"hunyuan", "hunyuan-dense", "kimi-k2", "jina-v2-code", "mpt", "gigachat"} <= known
    assert {"phi-2", "roberta-bpe", "grok-2", "afmoe", "minimax-m2", "gemma4"} <= known


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "We're  12a\n\nb", ["We", "'re", " ", " 12", "a", "\n", "\n", "b"]),
        ("starcoder", "ab 123", ["ab", " ", "1", "2", "3"]),
        ("llama3", "WE'RE 12345!\n\n x", ["WE", "'RE", " ", "123", "45", "!\n\n", " x"]),
        ("qwen2", "a 123", ["a", " ", "1", "2", "3"]),
        ("qwen35", "e\u0301a b", ["e\u0301a", " b"]),
        ("falcon", "a1234$b", ["a", "123", "4", "$", "b"]),
        ("default", "a1234 b", ["a", "123", "4", " b"]),
        ("deepseek-llm", "ab 12\n一二 ", ["ab", " ", "12", "\n", "一二", " "]),
        ("deepseek-coder", "ab, 12", ["ab", ",", " ", "1", "2"]),
        ("deepseek-v3", "1234一二.a b", ["123", "4", "一二", ".a", " b"]),
        ("gpt-4o", "helloWorld it's 1234", ["hello", "World", " it's", " ", "123", "4"]),
        ("tekken", "helloWorld it's 12", ["hello", "World", " it", "'s", " ", "1", "2"]),
        ("kimi-k2", "ab一二Cd 1234", ["ab", "一二", "Cd", " ", "123", "4"]),
        ("bloom", "a, b", ["a", ",", " b"]),
        ("viking", "a12", ["a", "1", "2"]),
        ("superbpe", "a b 1234567", ["a b ", "1", "234", "567"]),
        ("tiny_aya", "a 12345", ["a", " ", "12", "345"]),
        ("afmoe", "12345 一a", ["12", "345", " ", "一", "a"]),
        ("chameleon", "IMGIMGABZ a1", ["IMGIMGABZ", " a", "1"]),
        ("bailingmoe", "a  \n\nb", ["a", "  \n\n", "b"]),
        ("seed-coder", "a!\nb", ["a", "!", "\n", "b"]),
        ("exaone-moe", "a bc, d", ["a bc", ",", " d"]),
        ("minicpm5", "ab 1234", ["ab", " ", "123", "4"]),
        ("jais-2", "a" + " " * 11 + "b", ["a", " " * 8, " " * 2, " b"]),
        ("laguna", "a 1\n\nb", ["a", " ", "1", "\n\n", "b"]),
        ("youtu", "aB한국어ㄅ", ["a", "B", "한국어", "ㄅ"]),
        ("ufakzeka", "Ali'nin", ["Ali", "'nin"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
    ],
)
def test_text_is_cut_where_the_model_was_trained_to(
    name: str, text: str, expected: list[str]
) -> None:
    """Each expression cuts words, digits, symbols and white space as its model does."""
    assert pieces(name, text) == expected


@pytest.mark.parametrize("name", supported_names())
@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_pieces_are_the_whole_text(name: str, text: str) -> None:
    """Cutting loses nothing: a byte-level vocabulary gives every text back."""
    assert "".join(pieces(name, text)) == text


@pytest.mark.parametrize("name", supported_names())
def test_long_runs_of_one_kind_are_cut(name: str) -> None:
    """R9: no expression backtracks over a long run; one that did would meet pytest's timeout."""
    build = pre_tokenization(name).build()
    for unit in ("a", " ", "1", "\n", " \n", "A", "'", "a\u0301", "<sentinel:1", "一"):
        text = unit * 24_000 + "x"
        assert len(build.pre_tokenize_str(text)) >= 1


def test_whole_pieces_are_taken_where_merges_are_ignored() -> None:
    """Llama 3 takes a piece that is a token as it is, GPT-2 only what merges lead to."""
    tokens = [*((char, NORMAL) for char in byte_alphabet().values()), ("xyz", NORMAL)]
    ids = {}
    for name in ("llama3", "gpt-2"):
        keys = metadata("gpt2", tokens, pre=name, merges=["x y"], bos_token_id=0)
        keys["tokenizer.ggml.tokens"].append("xy")
        keys["tokenizer.ggml.token_type"].append(NORMAL)
        ids[name] = Tokenizer.from_gguf(keys).encode("xyz", add_special=False)
    assert [len(found) for found in ids.values()] == [1, 2]


def test_gemma4_spells_spaces_and_bytes_as_sentencepiece_does() -> None:
    """Gemma 4's BPE works on U+2581 and falls back to `<0xNN>`."""
    tokens = ["<bos>", "a", "b", "\u2581", "\u2581a", "\n\n", *(f"<0x{i:02X}>" for i in range(256))]
    keys = metadata("gemma4", [(t, NORMAL) for t in tokens], merges=["\u2581 a"], bos_token_id=0)
    tokenizer = Tokenizer.from_gguf(keys)
    ids = tokenizer.encode("b a\n\n\u20ac")
    assert [tokenizer.token_text(i) for i in ids] == [
        *("<bos>", "b", "\u2581a", "\n\n", "<0xE2>", "<0x82>", "<0xAC>")
    ]
    assert tokenizer.decode(ids[1:]) == "b a\n\n\u20ac"
