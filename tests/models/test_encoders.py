"""Encoders against transformers, from both formats and on both backends."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from backends.steps import Seq, prefill, run_hidden, step_input
from models.encoders import (
    ENCODERS,
    RANKERS,
    Encoder,
    hidden_rows,
    make_encoder,
    oracle,
    write_encoder_gguf,
)
from models.tiny import PARITY, make_hf
from quintet._native import kernels_info
from quintet.backends.cpu import CPUExecutor
from quintet.backends.reference import ReferenceExecutor
from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import Model, load_model

RNG = np.random.default_rng(5)
TEXTS = [RNG.integers(3, 160, length).tolist() for length in (75, 1, 17, 40)]
TABLES = kernels_info()["available"]
BERT, MODERN = ENCODERS[0], ENCODERS[3]


def cpu(model: Model, **overrides) -> CPUExecutor:
    options = {
        "num_blocks": 20,
        "max_num_batched_tokens": 160,
        "max_logits_rows": 50,  # fewer than rows are asked for
        "weight_dtype": "float32",
        "kv_dtype": "float32",
        "num_threads": 2,
    }
    return CPUExecutor(model, **{**options, **overrides})


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def worst_error(found: list[np.ndarray], model) -> float:
    pairs = zip(found, TEXTS, strict=True)
    return max(relative_error(rows, oracle(model, text)) for rows, text in pairs)


@pytest.mark.parametrize("row", ENCODERS, ids=lambda row: row.id)
def test_hidden_rows_equal_transformers_from_both_formats(row: Encoder, tmp_path):
    """The reference backend is within 1e-4, from a directory and from a GGUF file of it."""
    expected = make_encoder(row, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        found = hidden_rows(ReferenceExecutor(load_model(source), num_blocks=20), TEXTS)
    assert worst_error(found, expected) < 1e-4
    write_encoder_gguf(row, tmp_path, tmp_path / "model.gguf")
    with GGUFFile.open(tmp_path / "model.gguf") as source:
        model = load_model(source)
        again = hidden_rows(ReferenceExecutor(model, num_blocks=20), TEXTS)
    assert model.pooling == "mean"
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("row", ENCODERS, ids=lambda row: row.id)
def test_native_rows_equal_transformers_and_do_not_depend_on_the_batch(row: Encoder, tmp_path):
    """Every kernel table is within 1e-3, and gives a text the same bits alone and in company."""
    expected = make_encoder(row, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        model = load_model(source)
        for kernels in TABLES:
            executor = cpu(model, kernels=kernels)
            together = hidden_rows(executor, TEXTS)
            assert worst_error(together, expected) < 1e-3, kernels
            for text, rows in zip(TEXTS, together, strict=True):
                assert np.array_equal(hidden_rows(executor, [text])[0], rows), kernels
            single = cpu(model, kernels=kernels, num_threads=1)
            assert np.array_equal(hidden_rows(single, TEXTS)[0], together[0]), kernels


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_rounded_weights_stay_near(dtype, tmp_path):
    """bfloat16 and int8, of weights and of keys and values, cost what their rounding should."""
    expected = make_encoder(MODERN, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        executor = cpu(load_model(source), weight_dtype=dtype, kv_dtype=dtype)
        assert 1e-4 < worst_error(hidden_rows(executor, TEXTS), expected) < 0.05


@pytest.mark.parametrize("row", RANKERS, ids=lambda row: row.id)
def test_scores_equal_transformers(row: Encoder, tmp_path):
    """A classifier's scores of the first row are within 1e-4, second texts of a pair included."""
    expected = make_encoder(row, tmp_path)
    types = [0] * 20 + [1] * 55 if row.config == "BertConfig" else None
    with SafetensorsDir.open(tmp_path) as source:
        model = load_model(source)
        assert model.head == "labels"
        step = step_input([(Seq(TEXTS[0], list(range(5))), len(TEXTS[0]))])
        step = dataclasses.replace(
            step,
            logits_rows=np.zeros(1, np.int32),
            token_types=None if types is None else np.array(types, np.int32),
        )
        wanted = oracle(expected, TEXTS[0], types)
        reference = ReferenceExecutor(model, num_blocks=5).run(step)
        assert relative_error(reference[0], wanted) < 1e-4
        for kernels in TABLES:
            assert relative_error(cpu(model, kernels=kernels).run(step)[0], wanted) < 1e-3
        # Without its head it gives the row that the head reads.
        assert cpu(model).run_hidden(step).shape == (1, 64)
    write_encoder_gguf(row, tmp_path, tmp_path / "model.gguf")
    with GGUFFile.open(tmp_path / "model.gguf") as source:
        if row.config == "ModernBertConfig":  # llama.cpp's files mean the mean row, unsaid
            with pytest.raises(UnsupportedModelError, match="classifier in a GGUF file"):
                load_model(source)
            return
        again = ReferenceExecutor(load_model(source), num_blocks=5).run(step)
    assert np.array_equal(again, reference)


@pytest.mark.parametrize("row", PARITY[:1], ids=lambda row: row.id)
def test_decoder_gives_its_final_hidden_rows(row, tmp_path):
    """Qwen3 without its head gives transformers' last hidden state, in one step or several."""
    expected = make_hf(row, tmp_path)
    text = TEXTS[0]
    with torch.no_grad():
        wanted = expected.model(torch.tensor([text])).last_hidden_state[0].numpy()
    with SafetensorsDir.open(tmp_path) as source:
        model = load_model(source)
        reference = run_hidden(
            ReferenceExecutor(model, num_blocks=20), [Seq(text, [3, 1, 7, 2, 9])]
        )
        assert relative_error(reference[0], wanted) < 1e-4
        executor = cpu(model)
        whole = run_hidden(executor, [Seq(text, [3, 1, 7, 2, 9])])[0]
        assert relative_error(whole, wanted) < 1e-3
        chunked = Seq(text, [4, 8, 5, 0, 6])
        prefill(executor, text[:32], chunked.blocks, chunk=32)
        chunked.num_computed = 32
        assert np.array_equal(run_hidden(executor, [chunked])[0], whole[32:])


def test_directory_without_prefix_loads(tmp_path):
    """Qwen3-Embedding's files leave out the "model." of every name."""
    make_hf(PARITY[1], tmp_path)
    from safetensors.numpy import load_file, save_file

    tensors = {}
    for shard in sorted(tmp_path.glob("*.safetensors")):
        tensors |= load_file(shard)
        shard.unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file(
        {name.removeprefix("model."): values for name, values in tensors.items()},
        tmp_path / "model.safetensors",
    )
    with SafetensorsDir.open(tmp_path) as source:
        assert load_model(source).program.hidden.width == 64


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (BERT, {"hidden_act": "relu"}),
        (BERT, {"position_embedding_type": "relative_key"}),
        (BERT, {"is_decoder": True}),
        (ENCODERS[2], {"prenorm": True}),
        (ENCODERS[2], {"num_experts": 8}),
        (MODERN, {"hidden_activation": "silu"}),
        (RANKERS[1], {"classifier_pooling": "mean"}),
    ],
    ids=lambda value: value.id if isinstance(value, Encoder) else next(iter(value)),
)
def test_what_would_run_wrong_is_refused(row, change, tmp_path):
    """An option that changes what is computed is refused by name."""
    make_encoder(row, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with SafetensorsDir.open(tmp_path) as source, pytest.raises(UnsupportedModelError):
        load_model(source)


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (BERT, {"layer_norm_eps": "x"}),
        (BERT, {"num_attention_heads": 0}),
        (BERT, {"num_attention_heads": 7}),
        (MODERN, {"layer_types": ["full_attention"]}),
        (MODERN, {"rope_parameters": {"full_attention": 3}}),
        (MODERN, {"local_attention": -5}),
        (ENCODERS[2], {"rope_parameters": [1]}),
    ],
    ids=lambda value: value.id if isinstance(value, Encoder) else next(iter(value)),
)
def test_broken_configuration_is_refused(row, change, tmp_path):
    """A value that makes no sense is refused with its key."""
    make_encoder(row, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with SafetensorsDir.open(tmp_path) as source, pytest.raises(ModelFormatError):
        load_model(source)


def test_context_is_no_longer_than_the_table_of_positions(tmp_path):
    """What a configuration claims beyond its tensors is not believed."""
    make_encoder(BERT, tmp_path, max_position_embeddings=16)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    with SafetensorsDir.open(tmp_path) as source:
        assert load_model(source).config.context_length == 16


def test_position_beyond_the_table_is_refused(tmp_path):
    """The native backend checks positions and token types before it reads a table by them."""
    make_encoder(BERT, tmp_path, max_position_embeddings=16)
    with SafetensorsDir.open(tmp_path) as source:
        executor = cpu(load_model(source))
        step = step_input([(Seq([5] * 17, [0, 1]), 17)])
        with pytest.raises(ValueError, match="positions"):
            executor.run_hidden(step)
        step = step_input([(Seq([5] * 4, [0]), 4)])
        for bad in (-1, 2):
            types = np.full(4, bad, np.int32)
            with pytest.raises(ValueError, match="token_types"):
                executor.run_hidden(dataclasses.replace(step, token_types=types))
        with pytest.raises(ValueError, match="lengths"):
            executor.run_hidden(dataclasses.replace(step, token_types=np.zeros(3, np.int32)))
