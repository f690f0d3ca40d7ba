"""Vocabularies in GGUF's keys: each kind cuts text as its original, or is refused."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats import protobuf
from quintet.tokenizer import Tokenizer
from quintet.tools.convert_vocabulary import vocabulary_fields
from tools.test_convert import byte_level, sentencepiece
from word_pieces import TEXTS, write_word_pieces

SIZE = 340
MORE_TEXTS = [*TEXTS, "", " ", "  the  cat ", "The CAT's mat\u0301, naïve", "\u6f22\u5b57 a\n\n\tb"]


def made(directory: Path, size: int = SIZE, name: str = "model") -> Tokenizer:
    fields = vocabulary_fields(directory, size, name)
    return Tokenizer.from_gguf({key: field.value for key, field in fields.items()})


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "tokenizer.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def charsmap() -> str:
    """SentencePiece's own table of NFKC, out of a file that it writes."""
    library = pytest.importorskip("sentencepiece")
    out = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d"]),
        model_writer=out,
        vocab_size=10,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    specs = dict(protobuf.fields(out.getvalue(), path="m"))  # its last pieces, and both specs
    table = dict(protobuf.fields(protobuf.message(specs[3], path="m"), path="m"))[2]
    return base64.b64encode(protobuf.message(table, path="m")).decode()


def write_unigram(directory: Path, *, by_words: bool = False) -> None:
    """A Unigram in the shape of XLM-RoBERTa's tokenizer.json, an older one or a newer one."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = ["\u2581", *"abcdehlorwt", "\u2581the", "\u2581c", "at", "\u2581a", "he", "\u2581cat"]
    pieces += [(word, -2.0 - 0.25 * (7 * i % 11)) for i, word in enumerate(words)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, 3, False))
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    words = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.pre_tokenizer = words if by_words else metaspace
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    space = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    table = {"type": "Precompiled", "precompiled_charsmap": charsmap()}
    strip = {"type": "Strip", "strip_left": True, "strip_right": True}
    steps = {"type": "Sequence", "normalizers": [table, strip, space]}
    if by_words:
        edit(directory, lambda stored: stored.update(normalizer=table))
    else:
        edit(directory, lambda stored: stored.update(normalizer=steps))
    config = {"mask_token": "<mask>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"lowercase": False},
        {"lowercase": False, "strip_accents": True},
        {"strip_accents": False},
    ],
    ids=["usual", "cased", "cased-without-accents", "with-accents"],
)
def test_word_pieces_arrive_with_their_normalisation(change: dict[str, Any], tmp_path: Path):
    """Words, their beginnings, letter case and accents."""
    write_word_pieces(tmp_path)
    edit(tmp_path, lambda stored: stored["normalizer"].update(change))
    original, again = Tokenizer.from_file(tmp_path), made(tmp_path)
    for text in MORE_TEXTS:
        assert again.encode(text) == original.encode(text)
    ids = original.encode("the cat sat.")
    assert again.decode(ids) == original.decode(ids)
    assert again.token_text(3) == "[SEP]"


@pytest.mark.parametrize("by_words", [False, True])
def test_a_unigram_arrives(by_words: bool, tmp_path: Path):
    """Scores, SentencePiece's normalisation, and the tokens around a text and between two."""
    write_unigram(tmp_path, by_words=by_words)
    original, again = Tokenizer.from_file(tmp_path), made(tmp_path)
    for text in [*MORE_TEXTS, "\uff34he c\u2460at", "a  a <mask>"]:
        assert again.encode(text) == original.encode(text), text
    assert again.between_ids == original.between_ids == (2, 2)
    assert again.encode("the cat")[0] == 0


@pytest.mark.parametrize(
    ("write", "change", "message"),
    [
        (write_word_pieces, {"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        (
            write_word_pieces,
            {
                "normalizer": {"type": "BertNormalizer", "lowercase": True, "clean_text": False}
                | {"handle_chinese_chars": True, "strip_accents": None}
            },
            "clean_text",
        ),
        (write_word_pieces, {"post_processor": None}, "WordPiece without one token"),
        (byte_level, {"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer without a name"),
        (byte_level, {"normalizer": {"type": "Lowercase"}}, "cut text otherwise"),
    ],
    ids=["normalizer", "clean-text", "no-cls", "pre-tokenizer", "lowercase"],
)
def test_rules_without_a_key_are_refused(
    write: Callable[[Path], None], change: dict[str, Any], message: str, tmp_path: Path
):
    """Each would cut some text otherwise."""
    write(tmp_path)
    edit(tmp_path, lambda stored: stored.update(change))
    with pytest.raises(UnsupportedModelError, match=message):
        made(tmp_path)


def test_added_tokens_beyond_the_rows_are_left_out(tmp_path: Path):
    """Gemma 3's 1B has one more token than rows; a token that text can give is an error."""
    byte_level(tmp_path)
    original = Tokenizer.from_file(tmp_path)
    size = original.vocab_size - 1  # the last one is added
    again = made(tmp_path, size)
    assert again.vocab_size == size
    assert again.encode("the hello") == original.encode("the hello")
    with pytest.raises(ModelFormatError, match="expected at most 300 tokens"):
        made(tmp_path, 300)


def test_ends_of_an_answer_arrive(tmp_path: Path):
    """What generation_config.json ends with and no spelling gives away has keys of its own."""
    byte_level(tmp_path)
    ids = [
        Tokenizer.from_file(tmp_path).token_to_id(text) for text in ("<think>", "the", "te", "o")
    ]
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": ids[:2]}))
    assert made(tmp_path).eog_ids == Tokenizer.from_file(tmp_path).eog_ids
    path.write_text(json.dumps({"eos_token_id": ids}))
    with pytest.raises(UnsupportedModelError, match="ends of an answer"):
        made(tmp_path)


def test_a_name_says_whether_tokens_swallow_white_space(tmp_path: Path):
    """Readers know Phi-3's by the model's name."""
    sentencepiece(tmp_path)
    assert vocabulary_fields(tmp_path, SIZE, "Phi-3-x")["general.name"].value == "Phi 3-x"
    edit(tmp_path, lambda stored: [t.update(rstrip=True) for t in stored["added_tokens"][2:]])
    assert vocabulary_fields(tmp_path, SIZE, "x")["general.name"].value == "phi3-x"
    again = made(tmp_path, name="x")
    text = "</s>\n\nhello"
    wanted = Tokenizer.from_file(tmp_path).encode(text, parse_special=True)
    assert again.encode(text, parse_special=True) == wanted


def test_a_directory_with_sentencepieces_own_file(tmp_path: Path):
    """tokenizer.model stands for tokenizer.json; rows beyond it are padded."""
    library = pytest.importorskip("sentencepiece")
    out = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(MORE_TEXTS * 3),
        model_writer=out,
        vocab_size=330,
        hard_vocab_limit=False,
        minloglevel=2,
        model_type="bpe",
        byte_fallback=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    )
    (tmp_path / "tokenizer.model").write_bytes(out.getvalue())
    theirs = library.SentencePieceProcessor(model_proto=out.getvalue())
    again = made(tmp_path, 400)
    assert again.vocab_size == 400
    for text in MORE_TEXTS:
        assert again.encode(text) == [theirs.bos_id(), *theirs.encode(text)]


def test_unexpected_content_is_an_error_that_names_the_file(tmp_path: Path):
    """A tokenizer.json that the library reads and whose parts are not where they belong."""
    write_word_pieces(tmp_path)
    edit(tmp_path, lambda stored: stored["model"].pop("unk_token"))
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json"):
        made(tmp_path)
