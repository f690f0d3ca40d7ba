"""Mixtures of experts, windows, softcaps and sinks on the native backend: the same bits whatever
the batch, and quantised experts near the same weights in float64."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from backends.steps import Seq, prefill, run
from models.tiny import PARITY, Row, hf_logits, make_hf, write_gguf
from quintet._native import kernels_info
from quintet.backends.cpu import CPUExecutor
from quintet.backends.reference import ReferenceExecutor
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import Model, load_model

RNG = np.random.default_rng(4)
TOKENS = RNG.integers(0, 160, 75).tolist()
BLOCKS = [9, 2, 5, 1, 7]
TABLES = kernels_info()["available"]
ROWS = {row.id: row for row in PARITY}


def executor(model: Model, **overrides) -> CPUExecutor:
    options = {
        "num_blocks": 40,
        "max_num_batched_tokens": 128,
        "max_logits_rows": 128,
        "weight_dtype": "auto",
        "kv_dtype": "bfloat16",
        "num_threads": 2,
    }
    return CPUExecutor(model, **{**options, **overrides})


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def in_gguf(row: Row, matrix_type: str, directory) -> GGUFFile:
    path = directory / f"{row.id}-{matrix_type}.gguf"
    write_gguf(row, make_hf(row, directory), path, gguf.GGMLQuantizationType[matrix_type])
    return GGUFFile.open(path)


@pytest.mark.parametrize("kernels", TABLES)
@pytest.mark.parametrize("name", ["gemma2", "gpt-oss"])
def test_bits_do_not_depend_on_batch_chunks_or_threads(name, kernels, tmp_path):
    """A sequence's logits are the same bits alone, chunked, in company, and on 1 to 4 threads."""
    with in_gguf(ROWS[name], "Q8_0", tmp_path) as source:
        model = load_model(source)
        options = {"kernels": kernels}
        alone = prefill(executor(model, **options), TOKENS, BLOCKS, chunk=75)
        assert np.isfinite(alone).all()
        for threads, chunk in ((1, 16), (3, 31), (4, 1)):
            cpu = executor(model, **options, num_threads=threads)
            np.testing.assert_array_equal(prefill(cpu, TOKENS, BLOCKS, chunk), alone)
        cpu = executor(model, **options)
        target = Seq(TOKENS, BLOCKS)
        crowd = [
            Seq(RNG.integers(0, 160, 70).tolist(), [10 + 5 * i + j for j in range(5)])
            for i in range(3)
        ]
        parts = []
        for counts in ([20, 3], [1, 17], [40, 1], [14, 2]):
            work = [(s, counts[1]) for s in crowd]
            work.insert(1, (target, counts[0]))
            parts.append(run(cpu, work)[1])
        np.testing.assert_array_equal(np.concatenate(parts), alone)


@pytest.mark.parametrize("name", ["gemma2", "gpt-oss", "deepseek3-groups"])
def test_tables_agree_to_the_bit_on_an_int8_cache(name, tmp_path):
    """Every table routes, caps and sinks alike."""
    with in_gguf(ROWS[name], "Q8_0", tmp_path) as source:
        model = load_model(source)
        found = [
            prefill(executor(model, kernels=table, kv_dtype="int8"), TOKENS, BLOCKS, chunk=31)
            for table in TABLES
        ]
    for logits in found[1:]:
        np.testing.assert_array_equal(logits, found[0])


def all_chosen(name: str, **overrides) -> Row:
    """The row with every expert used: rounding cannot choose another, which is no small error."""
    row = ROWS[name]
    count = row.overrides.get("num_experts") or row.overrides["num_local_experts"]
    changes = {"num_experts_per_tok": count, **overrides}
    return Row(f"{name}-all", row.hf, row.gguf_arch, {**row.overrides, **changes})


@pytest.mark.parametrize("matrix_type", ["F16", "BF16", "Q8_0", "Q4_1", "MXFP4"])
@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss"])
def test_quantised_experts_are_near_float64_on_the_same_weights(name, matrix_type, tmp_path):
    """What rounded activations cost stays below the bound of dense models in test_cpu."""
    with in_gguf(all_chosen(name), matrix_type, tmp_path) as source:
        assert quantisation_error(load_model(source)) < 0.03


def test_experts_of_super_blocks_are_near_float64_on_the_same_weights(tmp_path):
    """Formats with blocks of 256 work in stacked experts, too."""
    wide = {"hidden_size": 256, "moe_intermediate_size": 256, "head_dim": 64}
    with in_gguf(all_chosen("qwen3moe", **wide), "Q4_K", tmp_path) as source:
        assert quantisation_error(load_model(source)) < 0.03


def quantisation_error(model: Model) -> float:
    exact = prefill(
        ReferenceExecutor(model, num_blocks=40, dtype=np.float64), TOKENS, BLOCKS, chunk=75
    )
    return relative_error(prefill(executor(model), TOKENS, BLOCKS, chunk=75), exact)


def test_a_single_expert_of_many_rows_runs_in_chunks(tmp_path):
    """All tokens to all of two experts: more visits than a chunk of rows."""
    row = Row(
        "crowded",
        "Qwen3Moe",
        "qwen3moe",
        {**ROWS["qwen3moe"].overrides, "num_experts": 2, "num_experts_per_tok": 2},
    )
    hf = make_hf(row, tmp_path)
    tokens = RNG.integers(0, 160, 300).tolist()
    with SafetensorsDir.open(tmp_path) as source:
        cpu = executor(
            load_model(source),
            max_num_batched_tokens=300,
            max_logits_rows=300,
            weight_dtype="float32",
            kv_dtype="float32",
        )
        found = prefill(cpu, tokens, list(range(19)), chunk=300)
    assert relative_error(found, hf_logits(hf, tokens)) < 1e-3
