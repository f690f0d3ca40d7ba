"""Importances by activations, against what hooks see in transformers' model."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, linear, silu

from models.encoders import ENCODERS, make_encoder, write_encoder_gguf
from models.tiny import hf_logits
from quintet.errors import UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.models import load_model
from quintet.tools.model_source import GGUFSource
from quintet.tools.prune import prune
from quintet.tools.prune.activations import score_activations
from quintet.tools.prune.anatomy import read_anatomy
from quintet.tools.prune.scores import Scores
from quintet.tools.text_pass import TextPass
from tools.test_convert import byte_level

from .dead_parts import Dying, make_dying, with_vocabulary

TEXT = "hello world, the tests of 2024: it's done. the other hello!\n" * 12
OPTIONS = {"context": 32, "max_chunks": 3}
NUM_LAYERS, VOCAB_SIZE = 3, 340
# The stream is read first by a norm, by one matrix or by one of three; gates and ups in one matrix;
# heads behind a latent; every kind of routing, with biases and groups, beside dense blocks.
NAMES = (
    *("phi3", "olmo2", "gemma2", "mixtral", "qwen3moe", "gpt-oss"),
    *("deepseek2-split", "deepseek3-groups"),
)


def make(name: str, directory: Path) -> tuple[Any, Path]:
    """A model in transformers and its file, which has a tokenizer."""
    dying = Dying(name, NUM_LAYERS, (), heads=False)
    hf, path = make_dying(dying, directory, vocab_size=VOCAB_SIZE)
    byte_level(directory)
    return hf, with_vocabulary(path, directory, VOCAB_SIZE)


def scores_of(path: Path, **options: Any) -> Scores:
    with GGUFFile.open(path) as file, GGUFSource(path) as source:
        model = load_model(file)
        anatomy = read_anatomy(model.config, source.tensors, str(path))
        return score_activations(
            path, source, model.program, anatomy, TEXT, **{**OPTIONS, **options}
        )


def hooked_scores(hf: Any, chunks: list[list[int]]) -> tuple[torch.Tensor, dict[str, dict]]:
    """Influences of blocks, and by part and layer what adds up over its inputs."""
    streams: dict[int, list[torch.Tensor]] = defaultdict(list)
    parts: dict[str, dict] = defaultdict(dict)
    num_tokens = sum(map(len, chunks))

    def add(part: str, layer: int, values: torch.Tensor) -> None:
        parts[part][layer] = parts[part].get(layer, 0) + values / num_tokens

    def watch(module: torch.nn.Module, see: Any) -> None:
        module.register_forward_pre_hook(lambda module, inputs: see(module, *inputs))

    def squares(part: str, layer: int) -> Any:
        def see(module: Any, x: torch.Tensor) -> None:
            x = x.reshape(-1, x.shape[-1])
            add(part, layer, (x**2).sum(0) * (module.weight**2).sum(0))

        return see

    def experts(layer: int) -> Any:
        def see(module: Any, x: torch.Tensor, chosen: torch.Tensor, taken: torch.Tensor) -> None:
            shares = torch.zeros(len(x), module.num_experts, dtype=x.dtype)
            shares.scatter_(1, chosen, taken.to(x.dtype))
            add("experts", layer, shares.sum(0))
            if hasattr(module, "gate_up_proj_bias"):
                return  # gpt-oss gates otherwise
            columns = []
            for expert in range(module.num_experts):
                gate, up = linear(x, module.gate_up_proj[expert]).chunk(2, dim=-1)
                inner = silu(gate) * up * shares[:, expert, None]
                columns.append((inner**2).sum(0) * (module.down_proj[expert] ** 2).sum(0))
            add("expert_columns", layer, torch.stack(columns))

        return see

    for number, layer in enumerate(hf.model.layers):
        watch(layer, lambda _, x, *__, number=number: streams[number].append(x[0]))
        watch(layer.self_attn.o_proj, squares("heads", number))
        mlp = layer.mlp
        if hasattr(mlp, "experts"):
            watch(mlp.experts, experts(number))
        else:
            watch(mlp.down_proj, squares("columns", number))
        if hasattr(mlp, "shared_experts"):
            watch(mlp.shared_experts.down_proj, squares("shared_columns", number))
    watch(hf.model.norm, lambda _, x: streams[NUM_LAYERS].append(x[0]))
    for chunk in chunks:
        hf_logits(hf, chunk)
    joined = [torch.cat(streams[number]) for number in range(NUM_LAYERS + 1)]
    turns = [1 - cosine_similarity(a, b, dim=-1).mean() for a, b in itertools.pairwise(joined)]
    return torch.stack(turns), parts


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_what_hooks_in_transformers_add_up_to(name: str, tmp_path: Path):
    """Of all blocks and parts."""
    hf, path = make(name, tmp_path)
    with TextPass(path, context=OPTIONS["context"]) as reader:
        chunks = reader.chunks(TEXT)[: OPTIONS["max_chunks"]]
    blocks, parts = hooked_scores(hf, chunks)
    found = scores_of(path, dtype="float32")
    np.testing.assert_allclose(found.blocks, blocks.detach().double(), rtol=1e-4, atol=1e-6)
    for part, by_layer in parts.items():
        for layer, values in by_layer.items():
            scores = found.parts[part][layer]
            expected = values.detach().double().numpy()
            if part == "heads":
                expected = expected.reshape(len(scores), -1).sum(axis=1)
            np.testing.assert_allclose(
                scores, expected, rtol=1e-3, atol=1e-5 * expected.max(), err_msg=part
            )


def test_an_expert_that_rounding_chose_counts_too(tmp_path: Path):
    """In bfloat16 other experts are chosen here and there than by the exact scores: the shares of a
    token's experts still add up to one."""
    _, path = make("mixtral", tmp_path)
    exact, rounded = (scores_of(path, dtype=dtype) for dtype in ("float32", "bfloat16"))
    for scores in (exact, rounded):
        np.testing.assert_allclose(scores.parts["experts"].sum(axis=1), 1, atol=1e-3)
    differences = np.abs(rounded.parts["experts"] - exact.parts["experts"])
    assert differences.max() > 1e-3  # some were


def test_what_writes_no_text_has_no_activations(tmp_path: Path):
    for row in ENCODERS:
        directory = tmp_path / row.id
        directory.mkdir()
        make_encoder(row, directory)
        write_encoder_gguf(row, directory, directory / "in.gguf")
        with pytest.raises(UnsupportedModelError):
            prune(directory / "in.gguf", directory / "out.gguf", importance="activation", text=TEXT)
        assert not (directory / "out.gguf").exists()
