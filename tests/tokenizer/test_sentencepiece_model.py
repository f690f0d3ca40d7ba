"""SentencePiece's own files against SentencePiece's own library."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

CORPUS = [
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Wir müssen draußen bleiben; it's 12:45 already!",
    "hello world hello there, world's end  and   more spaces",
    "def main():\n    return [x for x in range(10)]",
]
TEXTS = [
    *CORPUS,
    "",
    " ",
    "hello",
    "  two  spaces ",
    "日本語 \U0001f680",
    "a\nb\tc",
    "unworldly foxes",
]
BPE = {"model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False}
LLAMA = {**BPE, "normalization_rule_name": "identity"}


def train(directory: Path, **options) -> sentencepiece.SentencePieceProcessor:
    """Write a tokenizer.model and return what its own library makes of it."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=out,
        **{"vocab_size": 340, "hard_vocab_limit": False, "minloglevel": 2, **options},
    )
    (directory / "tokenizer.model").write_bytes(out.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def configure(directory: Path, **config) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "options",
    [
        LLAMA,
        {**LLAMA, "add_dummy_prefix": False},
        {"model_type": "unigram", "vocab_size": 120},
        {"model_type": "unigram", "vocab_size": 120, "remove_extra_whitespaces": False},
    ],
    ids=["llama", "gemma", "t5", "t5-with-spaces"],
)
def test_text_is_cut_as_by_sentencepiece(options: dict, tmp_path: Path):
    """Ids and decoded text are the library's, from a directory without tokenizer.json."""
    theirs = train(tmp_path, **options)
    ours = Tokenizer.from_file(tmp_path)
    assert ours.vocab_size == theirs.get_piece_size()
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text, add_special=False) == ids, text
        if theirs.unk_id() not in ids:  # the library shows what it does not know
            assert ours.decode(ids) == theirs.decode(ids)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_id(), theirs.eos_id())


def test_what_stands_beside_it_counts(tmp_path: Path):
    """Added tokens, flags, a chat template and ends of an answer are those of Hugging Face."""
    size = train(tmp_path, **LLAMA).get_piece_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<tool>": size}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, size + 2]}))
    configure(
        tmp_path,
        add_bos_token=False,
        add_eos_token=True,
        eos_token="<|turn|>",
        added_tokens_decoder={
            "0": {"content": "<unk>", "special": True},
            str(size + 2): {"content": "<|turn|>", "special": True},
        },
        chat_template="{{ messages[0].content }}",
    )
    tokenizer = Tokenizer.from_file(tmp_path)
    assert tokenizer.vocab_size == size + 3
    assert tokenizer.encode("<tool>")[-2:] == [size, size + 2]
    assert tokenizer.is_special(size + 2)
    assert not tokenizer.is_special(size)
    assert tokenizer.eog_ids == {2, size + 2}
    assert tokenizer.chat_templates["default"] == "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({"model_type": "char"}, {}, "SentencePiece model"),
        ({**BPE, "normalization_rule_name": "nmt_nfkc"}, {}, "BPE with a normalisation"),
        ({**LLAMA, "remove_extra_whitespaces": True}, {}, "BPE without extra spaces"),
        ({**LLAMA, "treat_whitespace_as_suffix": True}, {}, "spaces behind words"),
        ({"model_type": "unigram", "byte_fallback": True}, {}, "Unigram with bytes"),
        (LLAMA, {"tokenizer_class": "XLMRobertaTokenizer"}, "XLMRobertaTokenizer"),
    ],
    ids=["char", "normalised", "collapsed", "suffix", "bytes", "class"],
)
def test_rules_that_gguf_cannot_say_are_refused(
    options: dict, config: dict, message: str, tmp_path: Path
):
    """Each would cut some text otherwise."""
    train(tmp_path, **options)
    configure(tmp_path, **config)
    with pytest.raises(UnsupportedModelError, match=message):
        Tokenizer.from_file(tmp_path)


def test_broken_files_are_refused(tmp_path: Path):
    """Each way in names what is wrong."""
    with pytest.raises(ModelNotFoundError):
        Tokenizer.from_file(tmp_path)
    train(tmp_path, **LLAMA)
    path = tmp_path / "tokenizer.model"
    whole = path.read_bytes()
    for data in (b"", whole[:-3], b"\x0a\x02\x18\x09", b"\x0a\x01\x0a", b"\x12\x00"):
        path.write_bytes(data)
        with pytest.raises(ModelFormatError):
            Tokenizer.from_file(tmp_path)
    path.write_bytes(whole)
    for config in (
        {"added_tokens_decoder": [1]},
        {"added_tokens_decoder": {"x": {"content": "a"}}},
        {"added_tokens_decoder": {"9" * 30: {"content": "a"}}},
        {"added_tokens_decoder": {"999999999": {"content": "a"}}},
        {"added_tokens_decoder": {"400": {"content": 3}}},
    ):
        configure(tmp_path, **config)
        with pytest.raises(ModelFormatError):
            Tokenizer.from_file(tmp_path)
    configure(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"a": -1}')
    with pytest.raises(ModelFormatError):
        Tokenizer.from_file(tmp_path)
