"""Encoders to GGUF: hidden rows, keys, and what vectors a model is for."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
from tokenizers import processors

from models.encoders import (
    ENCODERS,
    RANKERS,
    Encoder,
    hidden_rows,
    make_encoder,
    write_encoder_gguf,
)
from quintet.backends.reference import ReferenceExecutor
from quintet.errors import UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model
from quintet.tokenizer import Tokenizer
from quintet.tools.convert import convert
from tools.test_convert import byte_level
from word_pieces import TEXTS, write_word_pieces

IDS = np.random.default_rng(5).integers(3, 18, 40).tolist()
VOCAB_SIZE = 340


def make(row: Encoder, directory: Path) -> None:
    """A random encoder of this row with a tokenizer of its kind."""
    directory.mkdir()
    if row.config != "ModernBertConfig":
        make_encoder(row, directory)
        write_word_pieces(directory)
        return
    make_encoder(row, directory, vocab_size=VOCAB_SIZE)
    byte_level(directory, "modern-bert")
    path = str(directory / "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.save(path)
    config = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def rows_of(path: Path) -> np.ndarray:
    with SafetensorsDir.open(path) if path.is_dir() else GGUFFile.open(path) as source:
        return hidden_rows(ReferenceExecutor(load_model(source), num_blocks=5), [IDS])[0]


@pytest.mark.parametrize("row", [*ENCODERS, RANKERS[0]], ids=lambda row: row.id)
def test_a_converted_encoder_is_what_the_gguf_package_writes_and_gives_the_same_rows(
    row: Encoder, tmp_path: Path
):
    """Keys and tensors are those of gguf's names; rows and tokens those of the directory."""
    directory, path = tmp_path / "hf", tmp_path / "m.gguf"
    make(row, directory)
    convert(directory, path, "f32")
    assert np.array_equal(rows_of(path), rows_of(directory))

    write_encoder_gguf(row, directory, tmp_path / "oracle.gguf")
    made, oracle = gguf.GGUFReader(path), gguf.GGUFReader(tmp_path / "oracle.gguf")
    name = gguf.MODEL_ARCH_NAMES[row.arch]
    for key, field in oracle.fields.items():
        if key.startswith(f"{name}.") and not key.endswith("pooling_type"):
            assert made.fields[key].contents() == pytest.approx(field.contents(), rel=1e-6), key
    tensors = {tensor.name: tensor.data for tensor in made.tensors}
    # Without a classifier nothing reads the pooler before it.
    left_out = ("cls",) if row in ENCODERS else ()
    wanted = {t.name: t.data for t in oracle.tensors if not t.name.startswith(left_out)}
    assert tensors.keys() == wanted.keys()
    for key, data in wanted.items():
        np.testing.assert_array_equal(tensors[key], data)

    original = Tokenizer.from_file(directory)
    with GGUFFile.open(path) as file:
        again = Tokenizer.from_gguf(file.metadata)
    for text in TEXTS:
        assert again.encode(text) == original.encode(text)
    assert again.between_ids == original.between_ids


def test_a_classifier_has_its_labels_and_ranks(tmp_path: Path):
    """Readers know by the labels how many scores there are, and by the pooling that there are."""
    make(RANKERS[0], tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "m.gguf", "f32")
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert list(file.metadata["bert.classifier.output_labels"]) == ["LABEL_0"]
        assert file.metadata["bert.pooling_type"] == 4
        assert file.metadata["tokenizer.ggml.token_type_count"] == 2


def test_a_modern_bert_that_scores_its_first_row_is_refused(tmp_path: Path):
    """llama.cpp scores the mean row of such files, and no key says otherwise."""
    make(RANKERS[1], tmp_path / "hf")
    with pytest.raises(UnsupportedModelError, match="classifier in a GGUF file"):
        convert(tmp_path / "hf", tmp_path / "m.gguf")


def test_positions_end_where_sentence_transformers_ends_a_text(tmp_path: Path):
    """llama.cpp wants as many as the context has tokens."""
    directory = tmp_path / "hf"
    make(ENCODERS[0], directory)
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    convert(directory, tmp_path / "m.gguf")
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert file.metadata["bert.context_length"] == 64
        assert file.tensors["position_embd.weight"].shape == (64, 64)
    assert np.abs(rows_of(tmp_path / "m.gguf") - rows_of(directory)).max() < 0.05  # of float16


@pytest.mark.parametrize(
    ("mode", "number"), [("cls", 2), ("mean", 1), ("lasttoken", 3), ("max", None)]
)
def test_the_pooling_of_sentence_transformers_arrives(
    mode: str, number: int | None, tmp_path: Path
):
    """As GGUF's number for it; what has none is refused."""
    directory = tmp_path / "hf"
    make(ENCODERS[0], directory)
    listing = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    (directory / "modules.json").write_text(json.dumps(listing))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": mode}))
    if number is None:
        with pytest.raises(UnsupportedModelError, match="max"):
            convert(directory, tmp_path / "m.gguf")
        return
    convert(directory, tmp_path / "m.gguf")
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert file.metadata["bert.pooling_type"] == number
