"""Cuts of every architecture, against transformers: dead parts that go are not missed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from backends.steps import prefill
from models.encoders import BASE as ENCODER_BASE
from models.encoders import ENCODERS, hidden_rows, make_encoder, oracle, write_encoder_gguf
from models.tiny import BASE, hf_logits
from quintet.backends.reference import ReferenceExecutor
from quintet.cli.app import app
from quintet.errors import ModelFormatError, RequestError, UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.models import architectures, gemma2, gemma3, load_model
from quintet.tools.prune import DECODERS as PRUNED_DECODERS
from quintet.tools.prune import ENCODERS as PRUNED_ENCODERS
from quintet.tools.prune import prune
from quintet.tools.prune.blocks import choose_blocks
from quintet.tools.quantize import quantize
from quintet.tools.text_pass import TextPass
from tools.test_convert import byte_level

from .dead_parts import (
    DYING,
    ROWS,
    Dying,
    dead_share,
    make_dying,
    matches,
    only_experts,
    only_groups,
    with_fields,
    with_vocabulary,
)

TOKENS = np.random.default_rng(7).integers(3, 160, 30).tolist()
BY_ID = {dying.id: dying for dying in DYING}
TEXT = "hello world, the tests of 2024: it's done. the other hello!\n" * 12
VOCAB_SIZE = 340


def logits_of(path: Path, tokens: list[int] = TOKENS) -> np.ndarray:
    with GGUFFile.open(path) as file:
        executor = ReferenceExecutor(load_model(file), num_blocks=2, dtype=np.float64)
        return prefill(executor, tokens, [1, 0], chunk=len(tokens))


def cut_all(path: Path, output: Path, dying: Dying, config, **options):
    """Cut exactly as much as is dead."""
    return prune(
        path,
        output,
        strategy="combined",
        target_n_layer=dying.num_layers - len(dying.layers),
        width_ratio=1 - dead_share(config),
        head_ratio=1 - 1 / config.num_key_value_heads if dying.heads else 1.0,
        expert_ratio=1.0,
        **options,
    )


@pytest.mark.parametrize("dying", DYING, ids=lambda dying: dying.id)
def test_what_adds_nothing_is_what_goes(dying: Dying, tmp_path: Path):
    """Blocks, columns and heads that are silent in transformers' model are found and cut, and the
    rest computes what it did: windows, rotation and leading dense blocks stay where they were."""
    hf, path = make_dying(dying, tmp_path)
    report = cut_all(path, tmp_path / "out.gguf", dying, hf.config)
    assert report.removed_layers == dying.layers
    assert report.num_parameters_after < report.num_parameters_before
    if dying.heads:
        assert report.after.num_heads < report.before.num_heads
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))


@pytest.mark.parametrize("name", ["qwen3moe", "gemma2", "deepseek2-split"])
def test_so_it_is_by_activations(name: str, tmp_path: Path):
    """The same parts are found on a text."""
    dying = BY_ID[name]
    hf, path = make_dying(dying, tmp_path, vocab_size=VOCAB_SIZE)
    byte_level(tmp_path)
    path = with_vocabulary(path, tmp_path, VOCAB_SIZE)
    options = {"importance": "activation", "text": TEXT, "context": 32, "max_chunks": 3}
    report = cut_all(path, tmp_path / "out.gguf", dying, hf.config, **options)
    assert report.removed_layers == dying.layers
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))
    # The same function on the same text, and so the same perplexity.
    values = report.perplexity_before.value, report.perplexity_after.value
    assert values[0] == pytest.approx(values[1], rel=1e-3)


@pytest.mark.parametrize("name", ["mixtral", "qwen3moe", "gpt-oss", "deepseek3-groups"])
def test_experts_that_stay_are_what_transformers_runs(name: str, tmp_path: Path):
    """The experts of the smallest weights go, from each group as many, with their scores' rows."""
    hf, path = make_dying(Dying(name, 3, (), heads=False), tmp_path)
    num_groups = getattr(hf.config, "n_group", None) or 1
    kept = []
    with torch.no_grad():
        for layer in hf.model.layers:
            if not hasattr(layer.mlp, "experts"):
                continue
            experts = layer.mlp.experts
            router = layer.mlp.router if name == "gpt-oss" else layer.mlp.gate
            sums = router.weight.abs().sum(1)
            for weight in (experts.gate_up_proj, experts.down_proj):
                sums = sums + weight.abs().sum((1, 2))
            groups = sums.reshape(num_groups, -1)
            best = groups.topk(groups.shape[1] * 2 // 3, dim=1).indices.sort(dim=1).values
            best = best + torch.arange(num_groups)[:, None] * groups.shape[1]
            kept.append(best.flatten().tolist())
    report = prune(path, tmp_path / "out.gguf", strategy="experts", expert_ratio=2 / 3)
    assert report.after.num_experts == len(kept[0]) < report.before.num_experts
    command = ["prune", str(path), str(tmp_path / "none"), "--strategy", "experts", "--dry-run"]
    command += ["--expert-ratio", str(2 / 3), "--json"]
    shown = CliRunner().invoke(app, command, catch_exceptions=False).output
    assert json.loads(shown)["after"]["num_experts"] == len(kept[0])
    only_experts(hf, kept)
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))


def test_experts_stay_by_use(tmp_path: Path):
    """On a text, those stay to which transformers' router gives the largest weights in sum."""
    hf, path = make_dying(Dying("qwen3moe", 3, (), heads=False), tmp_path, vocab_size=VOCAB_SIZE)
    byte_level(tmp_path)
    path = with_vocabulary(path, tmp_path, VOCAB_SIZE)
    with TextPass(path, context=32) as reader:
        chunks = reader.chunks(TEXT)[:3]
    uses = torch.zeros(3, 6, dtype=torch.float64)
    for number, layer in enumerate(hf.model.layers):

        def count(module, inputs, output, number=number):
            uses[number].index_add_(0, output[2].flatten(), output[1].double().flatten())

        layer.mlp.gate.register_forward_hook(count)
    for chunk in chunks:
        hf_logits(hf, chunk)
    options = {"importance": "activation", "text": TEXT, "context": 32, "max_chunks": 3}
    options["dtype"] = "float32"  # near ties fall as in transformers
    prune(path, tmp_path / "out.gguf", strategy="experts", expert_ratio=0.5, **options)
    only_experts(hf, uses.topk(3, dim=1).indices.sort(dim=1).values.tolist())
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))


def test_a_norm_over_all_heads_is_over_those_that_stay(tmp_path: Path):
    """OLMo 2 normalises whole rows of queries: the cut model's rows are shorter."""
    hf, path = make_dying(Dying("olmo2", 3, ()), tmp_path)
    report = prune(path, tmp_path / "out.gguf", strategy="attention", head_ratio=0.5)
    assert "hidden size" in report.llama_cpp_refuses
    only_groups(hf, [0])
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))


ENCODER_LAYERS = {"bert": (4, (2,)), "nomic": (4, (1,)), "modern-biases": (7, (2, 3, 4))}


@pytest.mark.parametrize("name", ENCODER_LAYERS)
def test_encoders_lose_blocks_and_columns(name: str, tmp_path: Path):
    """ModernBERT's pattern of windows stays, and so does its first block, which has no norm.

    BERT normalises after every sum, so that a silent block is not the same as none: its oracle is
    the model without it.
    """
    row = next(row for row in ENCODERS if row.id == name)
    num_layers, dead = ENCODER_LAYERS[name]
    model = make_encoder(row, tmp_path, num_hidden_layers=num_layers)
    base = model if hasattr(model, "embeddings") else model.base_model
    layers = base.layers if hasattr(base, "layers") else base.encoder.layer
    columns = torch.arange(0, ENCODER_BASE["intermediate_size"], 4)
    with torch.no_grad():
        for number, layer in enumerate(layers):
            down = {"bert": "output.dense", "nomic": "mlp.down_proj"}.get(name, "mlp.Wo")
            layer.get_submodule(down).weight[:, columns] = 0
            if number in dead:
                for parameter in layer.parameters():
                    if parameter.ndim == 2:
                        parameter.mul_(0.5)
    model.float().save_pretrained(tmp_path)
    model.double()
    path = tmp_path / "whole.gguf"
    write_encoder_gguf(row, tmp_path, path)
    for number in reversed(dead):
        del layers[number]
    base.config.num_hidden_layers = len(layers)
    report = prune(path, tmp_path / "out.gguf", strategy="combined", target_n_layer=len(layers))
    assert report.removed_layers == dead
    assert report.after.feed_forward == ENCODER_BASE["intermediate_size"] - len(columns)
    assert report.after.num_heads == report.before.num_heads
    with GGUFFile.open(tmp_path / "out.gguf") as file:
        executor = ReferenceExecutor(load_model(file), num_blocks=2, dtype=np.float64)
        (found,) = hidden_rows(executor, [TOKENS])
    assert matches(found, oracle(model, TOKENS))


@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_the_best_of_all_that_keep_the_pattern(seed: int):
    """Against all subsets of a size: none that keeps the kinds in order has a larger sum."""
    random = np.random.default_rng(seed)
    num_layers, period = int(random.integers(3, 10)), int(random.integers(2, 5))
    found = tuple((layer + 1) % period == 0 for layer in range(num_layers))
    count = int(random.integers(1, num_layers))
    expected = found[:count]
    scores = random.normal(size=num_layers)
    chosen = choose_blocks(scores, count, found, expected)
    allowed = [
        each
        for each in itertools.combinations(range(num_layers), count)
        if tuple(found[layer] for layer in each) == expected
    ]
    assert chosen == max(allowed, key=lambda each: sum(scores[list(each)]))
    assert choose_blocks(scores, count, found, None) == tuple(
        sorted(np.argsort(-scores)[:count].tolist())
    )


@pytest.mark.parametrize(
    ("name", "num_layers", "count"),
    [("smollm3", 8, 5), ("gemma2", 6, 3), ("gemma3", 9, 7), ("olmo3", 8, 5), ("gpt-oss", 6, 3)],
)
def test_any_number_of_blocks_may_stay(name: str, num_layers: int, count: int, tmp_path: Path):
    """Also where that is no whole period: each is of the kind that its new place has, and with the
    kinds they had transformers computes the same."""
    hf, path = make_dying(Dying(name, num_layers, ()), tmp_path)
    report = prune(path, tmp_path / "out.gguf", target_n_layer=count)
    for number in reversed(report.removed_layers):
        del hf.model.layers[number]
    kept = sorted({*range(num_layers)} - {*report.removed_layers})
    for number, layer in enumerate(hf.model.layers):
        layer.self_attn.layer_idx = number
    if name == "smollm3":
        before = hf.config.no_rope_layers
        assert [before[layer] for layer in kept] == before[:count]
    else:
        before = list(hf.config.layer_types)
        assert [before[layer] for layer in kept] == before[:count]
        hf.config.layer_types = before[:count]
    hf.config.num_hidden_layers = count
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))


def test_flags_of_each_block_go_with_it(tmp_path: Path):
    """A file that says of each block whether it has a window may keep any of them."""
    hf, path = make_dying(Dying("olmo3", 5, (2,), heads=False), tmp_path)
    flags = np.array([True, True, False, True, False])
    hf.config.layer_types = ["sliding_attention" if flag else "full_attention" for flag in flags]
    for layer, flag in zip(hf.model.layers, flags, strict=True):
        layer.self_attn.sliding_window = hf.config.sliding_window if flag else None
        layer.self_attn.attention_type = "sliding_attention" if flag else "full_attention"
    path = with_fields(path, olmo2__attention__sliding_window_pattern=flags)
    assert matches(logits_of(path), hf_logits(hf, TOKENS))
    prune(path, tmp_path / "out.gguf", target_n_layer=4)
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))


def test_blocks_of_experts_are_cut_as_they_lie(tmp_path: Path):
    """Rows that stay keep their bytes in a stack of experts; columns are encoded again."""
    _, path = make_dying(Dying("qwen3moe", 3, ()), tmp_path)
    quantize(path, tmp_path / "q.gguf", "Q8_0")
    report = prune(tmp_path / "q.gguf", tmp_path / "out.gguf", strategy="combined", width_ratio=0.5)
    changed = {each.name.split(".", 2)[2] for each in report.reencoded}
    assert changed == {"ffn_down_exps.weight"}
    with GGUFFile.open(tmp_path / "q.gguf") as before, GGUFFile.open(tmp_path / "out.gguf") as now:
        info = now.tensors["blk.1.ffn_up_exps.weight"]
        assert info.shape == (4, 16, BASE["hidden_size"])
        rows = {bytes(row) for row in before.raw(info.name).reshape(6 * 32, -1)}
        assert rows.issuperset(map(bytes, now.raw(info.name).reshape(4 * 16, -1)))
        down = now.tensors["blk.1.ffn_down_exps.weight"]
        assert down.ggml_type == GGMLType.F16  # 16 columns are no block of 32


def test_every_architecture_is_known():
    """A new one is refused until its cuts have been compared here."""
    assert set(architectures()) == {*PRUNED_DECODERS, *PRUNED_ENCODERS}
    tested = {ROWS[dying.id].gguf_arch for dying in DYING} | {"qwen2", "qwen3"}  # test_prune.py
    assert tested == set(PRUNED_DECODERS)


def test_leading_dense_blocks_are_counted(tmp_path: Path):
    """llama.cpp goes by the number in the file, we by the tensors."""
    _, path = make_dying(BY_ID["deepseek2-split"], tmp_path)
    prune(path, tmp_path / "out.gguf", target_n_layer=4)
    for name, expected in (("whole.gguf", 2), ("out.gguf", 1)):
        with GGUFFile.open(tmp_path / name) as file:
            assert file.metadata["deepseek2.leading_dense_block_count"] == expected


SCALED = {"gemma2": (gemma2, "attn_q.weight"), "gemma3": (gemma3, "attn_q_norm.weight")}


@pytest.mark.parametrize("name", SCALED)
def test_queries_are_scaled_as_they_were(name: str, tmp_path: Path, monkeypatch):
    """Readers scale those of the largest Gemma 2 and 3, which they know by the number of blocks, by
    sizes of their own: what a cut changes of that goes into the weights."""
    module, scaled = SCALED[name]
    dying = BY_ID[name]
    scalar = BASE["hidden_size"] // BASE["num_attention_heads"]
    hf, path = make_dying(dying, tmp_path, query_pre_attn_scalar=scalar, head_dim=32)
    monkeypatch.setattr(module, "_LAYERS_OF_27B", dying.num_layers)
    assert matches(logits_of(path), hf_logits(hf, TOKENS))
    report = cut_all(path, tmp_path / "out.gguf", dying, hf.config)
    assert report.removed_layers == dying.layers
    assert {each.name.split(".", 2)[2] for each in report.reencoded} == {scaled}
    assert matches(logits_of(tmp_path / "out.gguf"), hf_logits(hf, TOKENS))


def test_what_is_not_there_is_not_cut(tmp_path: Path):
    """Experts of a dense model, heads of an encoder, more experts than tokens can do without."""
    _, path = make_dying(Dying("llama", 3, ()), tmp_path)
    with pytest.raises(RequestError, match="nothing would be removed") as caught:
        prune(path, tmp_path / "out.gguf", strategy="experts")
    assert caught.value.parameter == "expert_ratio"
    _, path = make_dying(Dying("mixtral", 3, ()), tmp_path)
    report = prune(path, tmp_path / "x", strategy="experts", expert_ratio=0.01, dry_run=True)
    assert report.after.num_experts == 2
    with pytest.raises(RequestError) as caught:
        prune(path, tmp_path / "out.gguf", strategy="experts", expert_ratio=0.0)
    assert caught.value.parameter == "expert_ratio"
    make_encoder(ENCODERS[0], tmp_path)
    write_encoder_gguf(ENCODERS[0], tmp_path, tmp_path / "bert.gguf")
    with pytest.raises(UnsupportedModelError, match=r"encoder.*attention"):
        prune(tmp_path / "bert.gguf", tmp_path / "out.gguf", strategy="attention")
    assert not (tmp_path / "out.gguf").exists()


def test_sizes_that_disagree_are_refused(tmp_path: Path):
    """A head count that the tensors do not bear out is a broken file, not an odd cut."""
    _, path = make_dying(Dying("llama", 3, ()), tmp_path)
    path = with_fields(path, llama__attention__head_count_kv=1)
    with pytest.raises(ModelFormatError):
        prune(path, tmp_path / "out.gguf", strategy="attention")
