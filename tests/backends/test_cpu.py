"""The native backend against transformers, the float64 reference, and itself."""

from __future__ import annotations

import resource
from pathlib import Path

import gguf
import numpy as np
import pytest

from backends.steps import Seq, prefill, run
from models.tiny import PARITY, Row, hf_logits, make_hf, write_gguf
from quintet._native import kernels_info
from quintet.backends import block_bytes
from quintet.backends.cpu import CPUExecutor
from quintet.backends.reference import ReferenceExecutor
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import Model, load_model

RNG = np.random.default_rng(3)
TOKENS = RNG.integers(0, 160, 75).tolist()
BLOCKS = [9, 2, 5, 1, 7]
TABLES = kernels_info()["available"]
WIDE = Row("wide", "Qwen3", "qwen3", {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64})
QUANTISED = {
    name: gguf.GGMLQuantizationType[name]
    for name in (
        *("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4"),
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"),
        *("NVFP4", "TQ1_0", "TQ2_0", "IQ1_S", "IQ1_M"),
        *("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    )
}
# One for each layout: the others are other weights to the kernels, not other work.
LAYOUTS = [
    name
    for name in QUANTISED
    if name not in ("NVFP4", "TQ1_0", "TQ2_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_S", "IQ3_XXS")
]

HUGE_PAGE = 2 << 20


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


def is_quantised(name: str) -> bool:
    return name not in ("F16", "BF16")


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(params=TABLES)
def kernels(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory):
    """One model in every matrix type we read, as open files."""
    row = WIDE
    model = make_hf(row, tmp_path_factory.mktemp("hf"))
    files = {}
    for name, matrix_type in QUANTISED.items():
        path = tmp_path_factory.mktemp(name) / "model.gguf"
        write_gguf(row, model, path, matrix_type)
        files[name] = GGUFFile.open(path)
    yield {name: load_model(file) for name, file in files.items()}
    for file in files.values():
        file.close()


@pytest.mark.parametrize("row", PARITY, ids=lambda row: row.id)
def test_float32_logits_equal_transformers(row: Row, kernels, tmp_path):
    """In float32 every architecture is within 1e-3 of transformers in float64, on every table."""
    model = make_hf(row, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        cpu = executor(
            load_model(source), weight_dtype="float32", kv_dtype="float32", kernels=kernels
        )
        found = prefill(cpu, TOKENS, BLOCKS, chunk=33)
    assert relative_error(found, hf_logits(model, TOKENS)) < 1e-3


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_logits_are_near_float64_on_the_same_weights(name, quantised, kernels):
    """What the activations' rounding costs stays within its derived bound.

    Each int8 rounding of a row adds about 0.55 % NRMSE; some 13 stand between the embedding and
    the logits here (four a layer and the head), and errors of that many roundings add in
    quadrature: 2 %, of which the bound leaves half as much again for the bf16 cache.
    """
    model = quantised[name]
    expected = prefill(
        ReferenceExecutor(model, num_blocks=40, dtype=np.float64), TOKENS, BLOCKS, chunk=75
    )
    found = prefill(executor(model, kernels=kernels), TOKENS, BLOCKS, chunk=75)
    assert relative_error(found, expected) < (0.03 if is_quantised(name) else 0.01)


def test_an_int8_cache_costs_little(quantised, kernels):
    """An int8 KV cache adds 1.1 % at most to each of three attentions' results: 1.9 % in all."""
    model = quantised["BF16"]
    wide = prefill(
        executor(model, kernels=kernels, weight_dtype="float32", kv_dtype="float32"),
        TOKENS, BLOCKS, chunk=75,
    )  # fmt: skip
    narrow = prefill(
        executor(model, kernels=kernels, weight_dtype="float32", kv_dtype="int8"),
        TOKENS, BLOCKS, chunk=75,
    )  # fmt: skip
    assert 0 < relative_error(narrow, wide) < 0.019


@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("head_dim", [32, 50])
def test_block_bytes_are_what_the_cache_takes(kv_dtype, head_dim, tmp_path):
    """The memory an engine plans with is that of the native cache, also where heads are padded."""
    row = Row("odd", "Llama", "llama", {"head_dim": head_dim})
    make_hf(row, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        model = load_model(source)
        cpu = executor(model, kv_dtype=kv_dtype)
    assert cpu.plan.cache_bytes == 40 * block_bytes(model, kv_dtype)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_large_cache_takes_memory_as_it_fills(tmp_path):
    """A first token touches the pages of its run of blocks, not one per layer and head."""
    row = Row("wide", "Llama", "llama", {"num_attention_heads": 8, "num_key_value_heads": 8})
    make_hf(row, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        model = load_model(source)
        cpu = executor(model, kv_dtype="float32", num_blocks=8192)
    streams = 2 * model.program.cache.num_layers * model.program.cache.num_kv_heads
    assert cpu.plan.cache_bytes > streams * HUGE_PAGE

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident_bytes()
    prefill(cpu, [1], [5000], chunk=1)
    assert resident_bytes() - before < streams * HUGE_PAGE // 2


def test_bits_on_an_int8_cache_are_those_of_every_table(quantised):
    """Attention's sums are of integers there, so that even avx512 rounds as the others do."""
    model = quantised["Q8_0"]
    found = [
        prefill(executor(model, kernels=name, kv_dtype="int8"), TOKENS, BLOCKS, chunk)
        for name, chunk in zip(TABLES, (75, 31, 16), strict=False)
    ]
    for logits in found[1:]:
        np.testing.assert_array_equal(logits, found[0])


@pytest.mark.parametrize("name", LAYOUTS)
def test_bits_do_not_depend_on_batch_chunks_or_threads(name, quantised, kernels):
    """A sequence's logits are the same bits alone, chunked, batched, and on 1 to 4 threads."""
    model = quantised[name]
    tokens = TOKENS[:38] if kernels == "reference" else TOKENS  # the scalar loops are slow
    alone = prefill(executor(model, kernels=kernels), tokens, BLOCKS, chunk=75)
    for threads, chunk in ((1, 16), (3, 31), (4, 1)):
        cpu = executor(model, kernels=kernels, num_threads=threads)
        np.testing.assert_array_equal(prefill(cpu, tokens, BLOCKS, chunk), alone)
    cpu = executor(model, kernels=kernels)
    for others in (1, 6):
        target = Seq(tokens, BLOCKS)
        crowd = [
            Seq(RNG.integers(0, 160, 70).tolist(), [10 + 5 * i + j for j in range(5)])
            for i in range(others)
        ]
        parts = []
        for counts in ([20, 3], [1, 17], [len(tokens) - 35, 1], [14, 2]):
            work = [(s, counts[1]) for s in crowd]
            work.insert(others // 2, (target, counts[0]))
            parts.append(run(cpu, work)[others // 2])
        np.testing.assert_array_equal(np.concatenate(parts), alone)


def test_a_step_that_breaks_its_contract_is_refused(quantised):
    """Tokens, slots and blocks outside the model or the cache are a ValueError, not a crash."""
    cpu = executor(quantised["Q8_0"])
    for seq, message in [
        (Seq([160], [0]), "token_ids"),
        (Seq([-1], [0]), "token_ids"),
        (Seq([1], [40]), "slot_mapping"),
        (Seq([1] * 20, [0, 40]), "slot_mapping"),
        (Seq([1] * 200, list(range(13))), "token_ids"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(cpu, [(seq, len(seq.tokens))])


def test_a_closed_executor_refuses_to_run(quantised):
    """close() is idempotent, and a step after it is an error."""
    cpu = executor(quantised["Q8_0"])
    cpu.close()
    cpu.close()
    with pytest.raises(ValueError, match="closed"):
        run(cpu, [(Seq([1], [0]), 1)])
