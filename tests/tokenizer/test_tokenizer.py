"""Encoding and decoding with public vocabularies and tiny ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet.errors import ModelNotFoundError, RequestError
from quintet.tokenizer import Tokenizer

from .vocabularies import byte_level, sentencepiece, unigram, word_piece

Vocabulary = Callable[[str], Tokenizer]
NAMES = ["bert-bge", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"]
TINY = Tokenizer.from_gguf(byte_level())
TINY_SPM = Tokenizer.from_gguf(sentencepiece())
texts = st.text(st.characters(exclude_categories=["Cs"]))


def expected_ids(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    """Texts and their ids, as llama.cpp ships them with the vocabulary."""
    path = folder / "vocab" / f"ggml-vocab-{name}.gguf"
    # The separator also ends the file.
    inputs = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    lines = Path(f"{path}.out").read_text().splitlines()
    return [
        (text, [int(word) for word in line.split()])
        for text, line in zip(inputs, lines, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_public_vocabulary_gives_the_published_ids(
    shared_data: Path, vocabulary: Vocabulary, name: str
) -> None:
    """Every line of every public vocabulary test is equal."""
    tokenizer = vocabulary(name)
    cases = expected_ids(shared_data, name)
    assert len(cases) == 46
    for text, ids in cases:
        assert tokenizer.encode(text, add_special=False) == ids, repr(text)


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_public_vocabulary_decodes_what_it_encoded(
    shared_data: Path, vocabulary: Vocabulary, name: str
) -> None:
    """Decoding the ids of a test text gives the text back."""
    tokenizer = vocabulary(name)
    for text, ids in expected_ids(shared_data, name):
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_any_text_survives_a_round_trip(vocabulary: Vocabulary, name: str, text: str) -> None:
    """Encoding and decoding any Unicode text gives it back."""
    tokenizer = vocabulary(name)
    ids = tokenizer.encode(text, add_special=False)
    # SentencePiece writes a space as U+2581 and cannot tell one from the other.
    expected = text.replace("\u2581", " ") if name in ("llama-spm", "phi-3") else text
    assert tokenizer.decode(ids, skip_special=False) == expected
    assert not any(tokenizer.is_special(token_id) for token_id in ids)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("bert-bge", [101], [102]),
        ("gpt-2", [], []),
        ("llama-bpe", [128000], []),
        ("llama-spm", [1], []),
        ("qwen2", [], []),
    ],
)
def test_special_tokens_are_added_as_the_vocabulary_wants(
    vocabulary: Vocabulary, name: str, before: list[int], after: list[int]
) -> None:
    """BOS, CLS and SEP go around a text, by default and on request only."""
    tokenizer = vocabulary(name)
    ids = tokenizer.encode("hello", add_special=False)
    assert tokenizer.encode("hello") == [*before, *ids, *after]
    assert (tokenizer.add_bos, tokenizer.add_eos) == (bool(before), bool(after))


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("llama-bpe", {"<|end_of_text|>", "<|eot_id|>"}),
        ("qwen2", {"<|endoftext|>", "<|im_end|>"}),
        ("phi-3", {"<|endoftext|>", "<|end|>", "</s>"}),
        ("gpt-2", {"<|endoftext|>"}),
        ("llama-spm", {"</s>"}),
    ],
)
def test_every_end_of_generation_token_is_known(
    vocabulary: Vocabulary, name: str, spellings: set[str]
) -> None:
    """End of sequence and of turn both stop; `</s>`, a mere word in Qwen2, does not."""
    tokenizer = vocabulary(name)
    assert {tokenizer.token_text(token_id) for token_id in tokenizer.eog_ids} == spellings


@pytest.mark.parametrize("name", ["llama-bpe", "llama-spm", "phi-3", "qwen2", "gpt-2", "bert-bge"])
def test_text_that_spells_a_control_token_stays_text(vocabulary: Vocabulary, name: str) -> None:
    """T5: without parse_special no control token comes out of a text."""
    tokenizer = vocabulary(name)
    control = [i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)]
    assert control
    for token_id in control:
        text = tokenizer.token_text(token_id)
        ids = tokenizer.encode(f"a{text}b {text}", add_special=False)
        assert not any(tokenizer.is_special(found) for found in ids)
        parsed = tokenizer.encode(f"a{text}b {text}", add_special=False, parse_special=True)
        assert parsed.count(token_id) == 2


def test_user_defined_tokens_are_always_recognised() -> None:
    """A token like <think> is one token with and without parse_special."""
    think = TINY.token_to_id("<think>")
    assert TINY.encode("<think>") == TINY.encode("<think>", parse_special=True) == [think]
    assert not TINY.is_special(think)


def test_sentencepiece_merges_cannot_spell_a_control_token() -> None:
    """T5: `<s>` stays text even where `<s` is a token that could be joined with `>`."""
    control = TINY_SPM.token_to_id("<s>")
    assert control not in TINY_SPM.encode("<s> a<s>", add_special=False)
    assert TINY_SPM.encode("a<s>b", add_special=False, parse_special=True).count(control) == 1


def test_phi3_control_tokens_swallow_the_space_after_them(vocabulary: Vocabulary) -> None:
    """Phi-3's turn tokens eat white space to their right, its BOS does not."""
    tokenizer = vocabulary("phi-3")
    end = tokenizer.token_to_id("<|end|>")
    ids = tokenizer.encode("<|end|> \n <|end|>", add_special=False, parse_special=True)
    assert ids == [end, end]
    assert len(tokenizer.encode("<s> \n <s>", add_special=False, parse_special=True)) > 2


def test_sentencepiece_space_is_added_and_dropped_once() -> None:
    """A text gets one leading space, which decoding takes away again and no more."""
    assert TINY_SPM.token_text(TINY_SPM.encode("hello", add_special=False)[0]) == "\u2581hello"
    for text in ("hello", " hello", "  hello", "", " "):
        assert TINY_SPM.decode(TINY_SPM.encode(text)) == text


def test_sentencepiece_space_can_be_switched_off() -> None:
    """With add_space_prefix false, text is encoded and decoded as it is."""
    tokenizer = Tokenizer.from_gguf(sentencepiece(add_space_prefix=False))
    assert tokenizer.token_text(tokenizer.encode("hello", add_special=False)[0]) == "hel"
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"


@settings(max_examples=200, deadline=None)
@given(text=st.text("abcdefgho l", max_size=30))
def test_cutting_sentencepiece_text_into_words_changes_nothing(text: str) -> None:
    """Word by word or in one go, the merges are the same; a piece across words forbids the cut."""
    whole = sentencepiece()
    whole["tokenizer.ggml.tokens"].append("h\u2581o")
    whole["tokenizer.ggml.token_type"].append(1)
    whole["tokenizer.ggml.scores"].append(-1000.0)
    uncut = Tokenizer.from_gguf(whole)
    assert uncut._codec.base.pre_tokenizer is None
    assert TINY_SPM._codec.base.pre_tokenizer is not None
    assert TINY_SPM.encode(text) == uncut.encode(text)


def test_sentencepiece_falls_back_to_bytes() -> None:
    """Characters outside the vocabulary become their UTF-8 bytes."""
    ids = TINY_SPM.encode("\u20ac", add_special=False)[1:]
    assert [TINY_SPM.token_text(token_id) for token_id in ids] == ["<0xE2>", "<0x82>", "<0xAC>"]


def test_token_bytes_are_what_the_token_stands_for() -> None:
    """Byte-level, byte fallback, the space mark and word pieces each become their bytes."""
    hello = TINY.token_to_id("\u0120hello")
    assert hello is not None
    assert TINY.token_bytes(hello) == b" hello"
    assert [TINY.token_bytes(token_id) for token_id in range(256)] == [
        bytes([i]) for i in range(256)
    ]
    assert TINY_SPM.token_bytes(3 + 0xE2) == b"\xe2"
    assert TINY_SPM.token_bytes(TINY_SPM.encode("hello")[1]) == b" hello"
    assert TINY_SPM.token_bytes(1) == b"<s>"


def test_word_pieces_join_into_words() -> None:
    """Continuations close up, punctuation too; CLS and SEP are left out."""
    tokenizer = Tokenizer.from_gguf(word_piece())
    ids = tokenizer.encode("Hello, unable WORLD!")
    assert [tokenizer.token_text(i) for i in ids[1:6]] == [
        *("\u2581hello", "\u2581,", "\u2581un", "able", "\u2581world")
    ]
    assert tokenizer.decode(ids) == "hello, unable world!"


def test_word_piece_gives_unknown_for_a_word_it_cannot_spell() -> None:
    """One impossible letter makes the whole word unknown; so do more than 100 letters."""
    tokenizer = Tokenizer.from_gguf(word_piece())
    assert tokenizer.encode("abz", add_special=False) == [1]
    assert tokenizer.encode("a" * 101, add_special=False) == [1]
    assert len(tokenizer.encode("a" * 100, add_special=False)) == 100


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc helowrd", max_size=30))
def test_unigram_finds_the_best_segmentation(text: str) -> None:
    """The ids are those of the most likely split, found here by trying all in order."""
    keys = unigram(remove_extra_whitespaces=False)
    tokenizer = Tokenizer.from_gguf(keys)
    spelled = "\u2581" + text.replace(" ", "\u2581") if text else ""
    pieces = dict(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.scores"], strict=True))
    best = [0.0] + [float("-inf")] * len(spelled)
    for end in range(1, len(spelled) + 1):
        for start in range(max(0, end - 8), end):
            if (score := pieces.get(spelled[start:end])) is not None:
                best[end] = max(best[end], best[start] + score)
    ids = tokenizer.encode(text, add_special=False)
    assert "".join(tokenizer.token_text(i) for i in ids) == spelled
    assert sum(pieces[tokenizer.token_text(i)] for i in ids) == pytest.approx(best[-1])


def test_unigram_ends_every_text_with_eos() -> None:
    """T5-like vocabularies add EOS and no BOS."""
    tokenizer = Tokenizer.from_gguf(unigram())
    assert tokenizer.encode("hello")[-1] == tokenizer.eos_id == 1
    assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"


def test_lone_surrogate_is_refused() -> None:
    """R16: text that cannot be UTF-8 is the caller's fault."""
    with pytest.raises(RequestError, match="surrogate"):
        TINY.encode("a\ud800")


@pytest.mark.parametrize("token_id", [-1, 10**9])
def test_ids_outside_the_vocabulary_are_refused(token_id: int) -> None:
    """No id outside the vocabulary has text, and negative ones do not count from the end."""
    for use in (TINY.token_bytes, TINY.token_text, lambda i: TINY.decode([i])):
        with pytest.raises(IndexError):
            use(token_id)


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    """A path that leads nowhere says so."""
    with pytest.raises(ModelNotFoundError, match=r"nothing\.gguf"):
        Tokenizer.from_file(tmp_path / "nothing.gguf")
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize("name", ["bert-bge", "llama-bpe", "llama-spm", "qwen2"])
@pytest.mark.parametrize("unit", ["Hello world, 12345. \n", "a", " ", "1", " \n", "<|", "一"])
def test_long_text_is_encoded(vocabulary: Vocabulary, name: str, unit: str) -> None:
    """R9: prose and monotonous text of 400 kB; quadratic time would meet pytest's timeout."""
    text = (unit * 400_000)[:400_000]
    assert vocabulary(name).encode(text)
