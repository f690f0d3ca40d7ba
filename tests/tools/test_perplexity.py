"""Perplexity, comparison and importances, against transformers' logits and activations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.tiny import PARITY, make_hf
from quintet.cli.app import app
from quintet.errors import ContextLengthError, RequestError
from quintet.tools.convert import convert
from quintet.tools.imatrix import compute_imatrix
from quintet.tools.imatrix_file import read_imatrix, write_imatrix
from quintet.tools.perplexity import compare, perplexity
from quintet.tools.quantize import quantize
from quintet.tools.text_pass import TextPass

from .test_convert import byte_level

TEXT = "hello world, the tests of 2024: it's done. the other hello!\n" * 12
CONTEXT = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    """A random qwen3 in transformers, and its directory."""
    directory = tmp_path_factory.mktemp("model")
    row = PARITY[0]
    found = make_hf(replace(row, overrides={**row.overrides, "vocab_size": 340}), directory)
    byte_level(directory)
    return found, directory


def reference_chunks(directory: Path) -> list[list[int]]:
    with TextPass(directory, context=CONTEXT) as reader:
        return reader.chunks(TEXT)


def log_probs(model, chunk: list[int]) -> np.ndarray:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([chunk])).logits[0].double(), -1).numpy()


def test_perplexity_is_that_of_transformers(model):
    """The second half of every chunk, token by token, in the mean."""
    hf, directory = model
    chunks = reference_chunks(directory)
    losses = []
    for chunk in chunks:
        rows = log_probs(hf, chunk)
        losses += [-rows[i, chunk[i + 1]] for i in range(CONTEXT // 2, CONTEXT - 1)]
    found = perplexity(directory, TEXT, context=CONTEXT, backend="reference")
    assert found.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert found.num_tokens == len(losses)
    assert found.num_chunks == len(chunks)
    native = perplexity(directory, TEXT, context=CONTEXT, max_chunks=3)
    assert native.num_chunks == 3
    assert 0 < native.error < native.value


def test_comparison_is_that_of_transformers(model, tmp_path):
    """KL divergence and agreement, between the model and one of two bits."""
    hf, directory = model
    quantize(directory, tmp_path / "small.gguf", "Q4_0")
    chunks = reference_chunks(directory)
    with TextPass(tmp_path / "small.gguf", context=CONTEXT, backend="reference") as small:
        divergences, agreements = [], []
        for chunk in chunks:
            a = log_probs(hf, chunk)[CONTEXT // 2 : -1]
            rows = np.concatenate([rows for _, rows in small.logits(chunk)])
            b = torch.log_softmax(torch.tensor(rows).double(), -1).numpy()[CONTEXT // 2 : -1]
            divergences += (np.exp(a) * (a - b)).sum(axis=1).tolist()
            agreements += (a.argmax(axis=1) == b.argmax(axis=1)).tolist()
    found = compare(directory, tmp_path / "small.gguf", TEXT, context=CONTEXT, backend="reference")
    assert found.mean_kl == pytest.approx(np.mean(divergences), rel=1e-3)
    assert found.max_kl == pytest.approx(np.max(divergences), rel=1e-3)
    assert found.top1_agreement == pytest.approx(np.mean(agreements))
    assert found.mean_kl > 0
    of_a, of_b = found.perplexity_a, found.perplexity_b
    assert found.perplexity_ratio == pytest.approx(of_b.value / of_a.value)
    assert 0 < found.ratio_error < of_b.error / of_b.value  # paired, so smaller


def test_a_model_is_no_distance_from_itself(model):
    """KL 0, agreement 1, equal perplexities."""
    _, directory = model
    found = compare(directory, directory, TEXT, context=CONTEXT)
    assert found.mean_kl == 0
    assert found.top1_agreement == 1
    assert found.perplexity_a == found.perplexity_b
    assert (found.perplexity_ratio, found.ratio_error) == (1, 0)


def test_importances_are_the_mean_squared_inputs_of_transformers_layers(model, tmp_path):
    """Every matrix but the output, each column, over all tokens of all chunks."""
    hf, directory = model
    squares: dict[str, list[np.ndarray]] = {}

    def watch(name):
        def hook(module, inputs, output):
            squares.setdefault(name, []).append(inputs[0][0].double().numpy() ** 2)

        return hook

    watched = {
        "blk.0.attn_v.weight": hf.model.layers[0].self_attn.v_proj,
        "blk.1.attn_output.weight": hf.model.layers[1].self_attn.o_proj,
        "blk.2.ffn_down.weight": hf.model.layers[2].mlp.down_proj,
    }
    handles = [layer.register_forward_hook(watch(name)) for name, layer in watched.items()]
    chunks = reference_chunks(directory)
    for chunk in chunks:
        log_probs(hf, chunk)
    for handle in handles:
        handle.remove()
    (tmp_path / "text.txt").write_text(TEXT)
    result = CliRunner().invoke(
        app,
        [
            *("imatrix", str(directory), str(tmp_path / "text.txt")),
            *("-o", str(tmp_path / "i.gguf"), "--context", str(CONTEXT), "--dtype", "float32"),
        ],
    )
    assert result.exit_code == 0, result.output
    found = read_imatrix(tmp_path / "i.gguf")
    assert found.num_chunks == len(chunks)
    assert found.dataset == "text.txt"
    assert len(found.names) == 3 * 7  # matrices of three layers
    for name, parts in squares.items():
        np.testing.assert_allclose(
            found.of(name), np.concatenate(parts).mean(axis=0), rtol=2e-4, err_msg=name
        )


def test_each_expert_has_the_importances_of_the_tokens_it_was_given(tmp_path):
    """As the router of transformers' model chooses: sums and counts by expert, and zeros of one
    that no token chose."""
    row = next(row for row in PARITY if row.id == "qwen3moe")
    hf = make_hf(replace(row, overrides={**row.overrides, "vocab_size": 340}), tmp_path)
    byte_level(tmp_path)
    inputs: list[torch.Tensor] = []
    mlp = hf.model.layers[1].mlp
    handle = mlp.register_forward_pre_hook(
        lambda _, x: inputs.append(x[0].reshape(-1, x[0].shape[-1]))
    )
    chunks = reference_chunks(tmp_path)[:2]
    for chunk in chunks:
        log_probs(hf, chunk)
    handle.remove()
    x = torch.cat(inputs)
    chosen = (x @ mlp.gate.weight.T).topk(hf.config.num_experts_per_tok).indices
    found = compute_imatrix(tmp_path, TEXT, context=CONTEXT, max_chunks=2, dtype="float32")
    experts = range(hf.config.num_experts)
    for name in ("gate", "up", "down"):
        weight = f"blk.1.ffn_{name}_exps.weight"
        assert found.shape(weight)[0] == len(experts)
        for expert in experts:
            rows = x[(chosen == expert).any(dim=1)]
            assert found.counts[weight][expert] == len(rows)
            if name == "down":
                gate, up = (rows @ mlp.experts.gate_up_proj[expert].T).chunk(2, dim=-1)
                rows = torch.nn.functional.silu(gate) * up
            expected = (rows.double() ** 2).sum(0).detach().numpy()
            np.testing.assert_allclose(found.sums[weight][expert], expected, rtol=2e-4, atol=1e-9)
    # Written as llama.cpp has it: columns and experts, as GGUF counts dimensions.
    write_imatrix(tmp_path / "i.gguf", found)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "i.gguf").tensors}
    columns = found.shape("blk.1.ffn_down_exps.weight")[1]
    written = tensors["blk.1.ffn_down_exps.weight.in_sum2"]
    assert written.shape.tolist() == [columns, len(experts)]
    counts = tensors["blk.1.ffn_down_exps.weight.counts"]
    assert counts.shape.tolist() == [1, len(experts)]
    assert counts.data.ravel().sum() == 2 * CONTEXT * hf.config.num_experts_per_tok


def test_the_commands(model, tmp_path):
    """A line or a table each, and JSON for programs."""
    _, directory = model
    (tmp_path / "text.txt").write_text(TEXT)
    convert(directory, tmp_path / "m.gguf", "q8_0")
    runner, common = CliRunner(), [str(tmp_path / "text.txt"), "--context", str(CONTEXT)]
    result = runner.invoke(app, ["perplexity", str(tmp_path / "m.gguf"), *common])
    assert result.output.startswith("perplexity ")
    both = [str(directory), str(tmp_path / "m.gguf")]
    result = runner.invoke(app, ["compare", *both, *common])
    assert "mean KL" in result.output
    result = runner.invoke(app, ["compare", *both, *common, "--json"])
    assert json.loads(result.output)["top1_agreement"] > 0.5


def test_refusals(model, tmp_path):
    """Short texts, long contexts and strangers are refused with numbers or names."""
    _, directory = model
    with pytest.raises(RequestError, match="at least 32 tokens"):
        perplexity(directory, "hello", context=CONTEXT)
    with pytest.raises(ContextLengthError):
        perplexity(directory, TEXT, context=100_000)
    with pytest.raises(RequestError, match="context"):
        compute_imatrix(directory, TEXT, context=1)
    other = tmp_path / "other"
    other.mkdir()
    for file in directory.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    byte_level(other, "gpt-2")
    stored = json.loads((other / "tokenizer.json").read_text())
    stored["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(RequestError, match="one vocabulary"):
        compare(directory, other, TEXT, context=CONTEXT)
