"""Cut models, against transformers' model with the same parts taken out or silenced."""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity
from typer.testing import CliRunner

from backends.steps import prefill
from models.tiny import BASE, PARITY, hf_logits, make_hf
from quintet import LLM
from quintet.backends.reference import ReferenceExecutor
from quintet.cli.app import app
from quintet.errors import RequestError, UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.hub.packaged import packaged_models
from quintet.models import load_model
from quintet.tools.convert import convert
from quintet.tools.prune import prune
from quintet.tools.prune.cut import writable
from quintet.tools.quantize import quantize
from quintet.tools.text_pass import TextPass
from tools.test_convert import byte_level

TEXT = "hello world, the tests of 2024: it's done. the other hello!\n" * 12
CONTEXT = 32
NUM_LAYERS = 4
TOKENS = [5, 17, 99, 3, 42, 8, 151, 60]
BY_ID = {row.id: row for row in PARITY}
SHAPE = {"vocab_size": 340, "num_hidden_layers": NUM_LAYERS}
NORMS = {"magnitude": 1, "l2_norm": 2}


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "llama"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A random model in transformers, and its directory."""
    directory = tmp_path_factory.mktemp("model")
    row = BY_ID[request.param]
    found = make_hf(replace(row, overrides={**row.overrides, **SHAPE}), directory)
    byte_level(directory)
    return found, directory


@pytest.fixture(scope="module")
def demo() -> Path:
    return Path(packaged_models()["demo"])


def logits_of(path: Path) -> np.ndarray:
    with GGUFFile.open(path) as file:
        executor = ReferenceExecutor(load_model(file), num_blocks=2, dtype=np.float64)
        return prefill(executor, TOKENS, [1, 0], chunk=len(TOKENS))


def power(weight: torch.Tensor, norm: int) -> torch.Tensor:
    return weight.detach().abs() ** norm


def kept(scores: torch.Tensor, count: int) -> list[int]:
    return sorted(scores.topk(count).indices.tolist())


def silence_columns(layer, columns: list[int]) -> None:
    """All feed-forward columns but these add nothing."""
    weight = layer.mlp.down_proj.weight
    mask = torch.zeros(weight.shape[1], dtype=weight.dtype)
    mask[columns] = 1
    with torch.no_grad():
        weight.mul_(mask)


def silence_groups(layer, groups: list[int]) -> None:
    """All groups of heads but these add nothing."""
    weight = layer.self_attn.o_proj.weight
    mask = torch.zeros(BASE["num_key_value_heads"], dtype=weight.dtype)
    mask[groups] = 1
    with torch.no_grad():
        weight.mul_(mask.repeat_interleave(weight.shape[1] // len(mask)))


def drop_layers(hf, layers: list[int]) -> None:
    hf.model.layers = torch.nn.ModuleList(hf.model.layers[i] for i in layers)
    hf.config.num_hidden_layers = len(layers)
    for number, layer in enumerate(hf.model.layers):
        layer.self_attn.layer_idx = number


def activations(hf, directory: Path) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Mean squared inputs of both output matrices by layer, and each block's influence."""
    inputs: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, x, name=name: inputs.setdefault(name, []).append(x[0][0])
        )
        for name, module in hf.named_modules()
        if name.endswith(("down_proj", "o_proj"))
    ]
    with TextPass(directory, context=CONTEXT) as reader:
        chunks = reader.chunks(TEXT)
    streams: list[list[torch.Tensor]] = [[] for _ in range(len(hf.model.layers) + 1)]
    for number, layer in enumerate(hf.model.layers):
        hooks.append(
            layer.register_forward_pre_hook(
                lambda _, x, number=number: streams[number].append(x[0][0])
            )
        )
    hooks.append(hf.model.norm.register_forward_pre_hook(lambda _, x: streams[-1].append(x[0][0])))
    with torch.no_grad():
        for chunk in chunks:
            hf(torch.tensor([chunk]))
    for hook in hooks:
        hook.remove()
    joined = [torch.cat(stream) for stream in streams]
    influences = [1 - cosine_similarity(a, b, dim=-1).mean() for a, b in itertools.pairwise(joined)]
    squares = {name: (torch.cat(parts) ** 2).mean(0) for name, parts in inputs.items()}
    layers = range(len(hf.model.layers))
    down = [squares[f"model.layers.{i}.mlp.down_proj"] for i in layers]
    output = [squares[f"model.layers.{i}.self_attn.o_proj"] for i in layers]
    return down, output, torch.stack(influences)


@pytest.mark.parametrize("importance", ["magnitude", "l2_norm", "activation"])
def test_what_is_cut_is_what_transformers_does_without(importance, model, tmp_path):
    """All three cuts at once; the parts that stay are chosen here by torch."""
    hf, directory = model
    num_columns, num_groups, num_layers = 64, 1, 3
    expected = copy.deepcopy(hf)
    if importance == "activation":
        down, output, influences = activations(hf, directory)
    blocks = []
    for number, layer in enumerate(expected.model.layers):
        mlp, attention = layer.mlp, layer.self_attn
        matrices = [p for p in layer.parameters() if p.ndim == 2]
        if importance == "activation":
            columns = down[number] * power(mlp.down_proj.weight, 2).sum(0)
            groups = output[number] * power(attention.o_proj.weight, 2).sum(0)
            groups = groups.reshape(2, -1).sum(1)
            blocks.append(influences[number])
        else:
            norm = NORMS[importance]
            columns = (
                power(mlp.gate_proj.weight, norm).sum(1)
                + power(mlp.up_proj.weight, norm).sum(1)
                + power(mlp.down_proj.weight, norm).sum(0)
            )
            groups = power(attention.o_proj.weight, norm).sum(0).reshape(2, -1).sum(1)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                groups = groups + power(part.weight, norm).sum(1).reshape(2, -1).sum(1)
            blocks.append(sum(power(each, norm).sum() for each in matrices))
        silence_columns(layer, kept(columns, num_columns))
        silence_groups(layer, kept(groups, num_groups))
    if importance != "activation":  # else the first and the last are kept
        blocks[0] = blocks[-1] = torch.tensor(torch.inf)
    layers = kept(torch.stack(blocks), num_layers)
    drop_layers(expected, layers)
    output_path = tmp_path / "pruned.gguf"
    report = prune(
        directory,
        output_path,
        strategy="combined",
        target_n_layer=num_layers,
        width_ratio=num_columns / BASE["intermediate_size"],
        head_ratio=0.5,
        importance=importance,
        text=TEXT if importance == "activation" else None,
        context=CONTEXT,
        dtype="float32",  # near ties fall as in transformers
    )
    assert sorted({*range(NUM_LAYERS)} - {*report.removed_layers}) == layers
    np.testing.assert_allclose(
        logits_of(output_path), hf_logits(expected, TOKENS), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q6_K", "Q4_K_M", "Q3_K_S"])
def test_rows_that_stay_keep_their_blocks(kind, demo, tmp_path):
    quantize(demo, tmp_path / "in.gguf", kind)
    report = prune(
        tmp_path / "in.gguf", tmp_path / "out.gguf", strategy="combined", target_n_layer=5
    )
    assert (tmp_path / "out.gguf").stat().st_size == report.file_bytes
    changed = {each.name for each in report.reencoded}
    with (
        GGUFFile.open(tmp_path / "in.gguf") as before,
        GGUFFile.open(tmp_path / "out.gguf") as after,
    ):
        for name, info in after.tensors.items():
            was = before.tensors[name]
            if name in changed:
                continue
            assert info.ggml_type == was.ggml_type
            if info.shape == was.shape:
                assert np.array_equal(after.raw(name), before.raw(name))
            elif info.shape[-1] == was.shape[-1]:
                rows = {bytes(row) for row in before.raw(name).reshape(was.shape[0], -1)}
                assert rows.issuperset(map(bytes, after.raw(name).reshape(info.shape[0], -1)))
            else:  # whole blocks of columns went
                size = was.ggml_type.block_size
                theirs = before.dequantized(name).reshape(was.shape[0], -1, size)
                ours = after.dequantized(name).reshape(info.shape[0], -1, size)
                columns = {theirs[:, i].tobytes() for i in range(theirs.shape[1])}
                assert all(ours[:, i].tobytes() in columns for i in range(ours.shape[1]))
    fallback = {(each.before, each.after) for each in report.reencoded}
    expected = {
        "F16": set(),
        "BF16": set(),
        "Q8_0": {("Q8_0", "Q8_0")},
        "Q4_0": {("Q4_0", "Q4_0")},
        "Q6_K": {("Q6_K", "Q8_0")},
        "Q4_K_M": {("Q4_K", "Q5_0"), ("Q6_K", "Q8_0")},
        "Q3_K_S": {("Q3_K", "Q4_0")},
    }[kind]
    assert fallback >= expected
    values = gguf.GGUFReader(tmp_path / "out.gguf")  # opens what the format's authors open
    assert values.get_field("qwen3.attention.head_count_kv").contents() == 1
    with LLM(str(tmp_path / "out.gguf")) as llm:
        assert llm.chat([{"role": "user", "content": "Hello"}]).text is not None


def test_the_command(demo, tmp_path):
    (tmp_path / "text.txt").write_text("What is the capital of France? " * 40)
    output = tmp_path / "out.gguf"
    arguments = ["prune", str(demo), str(output), "--layers", "3", "--context", "64"]
    arguments += ["--text", str(tmp_path / "text.txt"), "--importance", "activation"]
    arguments += ["--dtype", "float32", "--threads", "1"]
    shown = CliRunner().invoke(app, [*arguments, "--dry-run"], catch_exceptions=False).output
    assert "not written" in shown
    assert not output.exists()
    shown = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).output
    found = json.loads(shown)
    assert found["after"]["num_layers"] == 3
    assert len(found["removed_layers"]) == 2
    assert found["perplexity_before"]["value"] > 1
    assert math.isfinite(found["perplexity_after"]["value"])
    assert found["file_bytes"] == output.stat().st_size


def test_formats_that_cannot_be_written_fall_back_to_no_fewer_bits():
    for kind in (GGMLType.IQ2_XXS, GGMLType.IQ3_S, GGMLType.NVFP4, GGMLType.TQ1_0, GGMLType.Q5_K):
        for width in (512, 96, 100):
            found = writable(kind, width)
            assert width % found.block_size == 0
            assert found.block_bytes / found.block_size >= kind.block_bytes / kind.block_size


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"strategy": "height"}, "strategy"),
        ({"importance": "taste"}, "importance"),
        ({"importance": "activation"}, "text"),
        ({"target_n_layer": 0}, "target_n_layer"),
        ({"target_n_layer": 6}, "target_n_layer"),
        ({"target_n_layer": 5}, "target_n_layer"),
        ({"strategy": "width", "width_ratio": 0.0}, "width_ratio"),
        ({"strategy": "width", "width_ratio": 1.5}, "width_ratio"),
        ({"strategy": "width", "width_ratio": 1.0}, "width_ratio"),
        ({"strategy": "width", "width_ratio": float("nan")}, "width_ratio"),
        ({"strategy": "attention", "head_ratio": -1.0}, "head_ratio"),
        ({"text": "short"}, "text"),
    ],
)
def test_refusals(options, parameter, demo, tmp_path):
    with pytest.raises(RequestError) as caught:
        prune(demo, tmp_path / "out.gguf", **options)
    assert caught.value.parameter == parameter
    assert not list(tmp_path.iterdir())


def test_the_input_is_never_overwritten(demo, tmp_path):
    path = tmp_path / "in.gguf"
    path.write_bytes(demo.read_bytes())
    with pytest.raises(RequestError, match="input itself"):
        prune(path, path)
    assert path.read_bytes() == demo.read_bytes()


def test_an_unknown_architecture_is_refused_by_name(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match="mamba"):
        prune(tmp_path / "x.gguf", tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_a_converted_file_and_its_directory_become_the_same(model, tmp_path):
    _, directory = model
    convert(directory, tmp_path / "in.gguf", "F32")
    for source, name in ((directory, "a"), (tmp_path / "in.gguf", "b")):
        prune(source, tmp_path / name, strategy="combined", head_ratio=0.5)
    with GGUFFile.open(tmp_path / "a") as a, GGUFFile.open(tmp_path / "b") as b:
        assert a.tensors == b.tensors
        assert all(np.array_equal(a.raw(name), b.raw(name)) for name in a.tensors)


def test_an_exception_of_the_callback_stops_and_leaves_nothing(demo, tmp_path):
    def cancel(progress):
        if progress.num_tensors_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(demo, tmp_path / "out.gguf", progress=cancel)
    assert not list(tmp_path.iterdir())
