"""Models in transformers with parts that add nothing: a cut that takes them changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from models.tiny import PARITY, make_hf, write_gguf
from quintet.formats.gguf_writer import Field, GGUFWriter
from quintet.tools.convert_vocabulary import vocabulary_fields
from quintet.tools.model_source import GGUFSource

ROWS = {row.id: row for row in PARITY}
NUM_DEAD = 16  # columns of an expert; of others the same share


@dataclass(frozen=True)
class Dying:
    """
    What is dead in a model of the parity table.

    Args:
        num_layers: blocks.
        layers: those that add nothing, neighbours: a whole period where blocks differ by place.
        overrides: of its configuration.
        heads: whether a group of heads is dead; not where a norm runs over all heads.
    """

    id: str
    num_layers: int
    layers: tuple[int, ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    heads: bool = True


DYING = [
    Dying("llama", 4, (2,)),
    Dying("phi3", 4, (1,)),
    Dying("granite", 4, (2,)),
    Dying("ministral3", 4, (1,)),
    Dying("glm4", 4, (1,)),
    Dying("olmo2", 4, (2,), heads=False),
    Dying("olmo3", 7, (2, 3, 4, 5), heads=False),
    Dying("smollm3", 7, (1, 2, 3, 4)),
    Dying("gemma2", 5, (1, 2)),
    Dying("gemma3", 9, (2, 3, 4, 5, 6, 7)),
    Dying("mixtral", 4, (2,)),
    Dying("qwen3moe", 4, (1,)),
    Dying("gpt-oss", 5, (2, 3)),
    Dying("deepseek2-lite", 5, (3,), {"first_k_dense_replace": 2}),
    Dying("deepseek2-split", 5, (1,), {"first_k_dense_replace": 2}),
    Dying("deepseek3-groups", 4, (2,)),
]


def make_dying(dying: Dying, directory: Path, **overrides: Any) -> tuple[Any, Path]:
    """The model in transformers, and its GGUF file in float32; both still have all parts."""
    row = ROWS[dying.id]
    settings = {**row.overrides, **dying.overrides, **overrides}
    row = replace(row, overrides={**settings, "num_hidden_layers": dying.num_layers})
    hf = make_hf(row, directory)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for number, layer in enumerate(hf.model.layers):
            silence_columns(layer, random, dead_share(hf.config))
            if dying.heads:
                silence_a_group(layer, hf.config)
            if number in dying.layers:
                silence(layer)
    path = directory / "whole.gguf"
    write_gguf(row, hf, path, gguf.GGMLQuantizationType.F32)
    return hf, path


def dead_share(config: Any) -> float:
    """Of columns: whole panels of an expert where there are some."""
    has_experts = hasattr(config, "num_experts_per_tok")
    width = getattr(config, "moe_intermediate_size", config.intermediate_size)
    return NUM_DEAD / (width if has_experts else config.intermediate_size)


def silence(layer: Any) -> None:
    """A block adds nothing."""
    for name, parameter in layer.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            parameter.zero_()


def silence_columns(layer: Any, random: torch.Generator, share: float) -> None:
    """Some columns of each feed-forward add nothing, others of each expert; the rest is large."""
    for name, parameter in layer.mlp.named_parameters():
        if name.endswith("bias") or "down_proj" not in name:
            continue
        parameter.mul_(2)
        is_transposed = hasattr(layer.mlp, "router")  # gpt-oss
        matrices = parameter.mT if is_transposed else parameter
        for matrix in matrices if parameter.ndim == 3 else matrices[None]:
            width = matrix.shape[1]
            matrix[:, torch.randperm(width, generator=random)[: round(width * share)]] = 0


def silence_a_group(layer: Any, config: Any) -> None:
    """The query heads of one KV head add nothing: columns of the output matrix."""
    weight = layer.self_attn.o_proj.weight
    weight.reshape(len(weight), config.num_key_value_heads, -1)[:, 1] = 0


def with_vocabulary(path: Path, directory: Path, vocab_size: int) -> Path:
    """The file with the tokenizer of a directory."""
    fields = vocabulary_fields(directory, vocab_size)
    output = path.with_name("spoken.gguf")
    with GGUFSource(path) as source:
        infos = list(source.tensors.values())
        kept = {k: v for k, v in source.fields.items() if not k.startswith("tokenizer.")}
        with GGUFWriter(output, {**kept, **fields}, infos) as writer:
            for info in infos:
                writer.write(info.name, source.raw(info.name))
    return output


def with_fields(path: Path, **values: Any) -> Path:
    """The file with other metadata; dots of keys are two underscores."""
    output = path.with_name("changed.gguf")
    with GGUFSource(path) as source:
        infos = list(source.tensors.values())
        fields = dict(source.fields)
        for key, value in values.items():
            fields[key.replace("__", ".")] = Field.of(value)
        with GGUFWriter(output, fields, infos) as writer:
            for info in infos:
                writer.write(info.name, source.raw(info.name))
    return output


def only_experts(hf: Any, kept: list[list[int]]) -> None:
    """Take all experts but these out of each block that has some."""
    blocks = [layer.mlp for layer in hf.model.layers if hasattr(layer.mlp, "experts")]
    for mlp, experts in zip(blocks, kept, strict=True):
        router = mlp.router if hasattr(mlp, "router") else mlp.gate
        for module in (router, mlp.experts):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(parameter[experts]))
            for name, values in list(module.named_buffers(recurse=False)):
                setattr(module, name, values[experts])
            module.num_experts = len(experts)
        if hasattr(mlp, "num_experts"):
            mlp.num_experts = len(experts)


def only_groups(hf: Any, kept: list[int]) -> None:
    """Take all groups of heads but these out of each block, norms over all heads with them."""
    for layer in hf.model.layers:
        attention = layer.self_attn
        groups = hf.config.num_key_value_heads
        for module in (attention.q_proj, attention.k_proj, attention.v_proj):
            weight = module.weight.reshape(groups, -1, module.weight.shape[1])[kept]
            module.weight = torch.nn.Parameter(weight.flatten(0, 1))
        for module in (attention.q_norm, attention.k_norm):
            module.weight = torch.nn.Parameter(module.weight.reshape(groups, -1)[kept].flatten())
        weight = attention.o_proj.weight
        weight = weight.reshape(len(weight), groups, -1)[:, kept]
        attention.o_proj.weight = torch.nn.Parameter(weight.flatten(1))


def matches(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    return bool(np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected))
