"""The metadata of a cut model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from quintet.errors import UnsupportedModelError
from quintet.formats.gguf_writer import Field
from quintet.formats.weights import TensorInfo
from quintet.graph import Graph
from quintet.models import AnyConfig, Config, architectures
from quintet.tools.model_source import ModelSource
from quintet.tools.prune.anatomy import Anatomy, Sizes
from quintet.tools.prune.blocks import kinds, read_model

# What they count is no longer so.
_STALE_KEYS = ("general.parameter_count", "general.size_label")
# Of GGUF's `expert_gating_func`; where it is missing, llama.cpp guesses by the number of blocks.
_SOFTMAX = 1
# Architectures whose matrices of heads llama.cpp expects to be as wide as the hidden size.
_HEADS_FILL = ("olmo2", "phi3", "qwen2")
_LITE = (26, 27)  # blocks of the DeepSeek models that have no latent of queries
# What a cut changes in a configuration; kinds of blocks are compared by themselves.
_CHANGES = (
    *("num_layers", "num_heads", "num_kv_heads", "windows", "rope_layers", "global_layers"),
    "attention_scale",  # made up for
)


def cut_fields(
    fields: Mapping[str, Field], anatomy: Anatomy, after: Sizes, layers: tuple[int, ...]
) -> dict[str, Field]:
    """
    The output's metadata: the input's with the new sizes.

    Args:
        fields: of the input.
        anatomy: of the model before.
        after: what will be left.
        layers: the blocks that stay.
    """
    before = anatomy.sizes
    prefix = f"{fields['general.architecture'].value}."
    result = {key: field for key, field in fields.items() if key not in _STALE_KEYS}
    for key, field in fields.items():
        value = field.value
        if (
            key.startswith(prefix)
            and isinstance(value, np.ndarray)
            and len(value) == before.num_layers
        ):
            result[key] = Field(field.type, value[list(layers)])
    numbers = {"block_count": after.num_layers}
    if before.feed_forward:
        numbers["feed_forward_length"] = after.feed_forward
    elif prefix == "llama.":  # Mixtral's experts have no width of their own
        numbers["feed_forward_length"] = after.expert_feed_forward
    if before.num_experts:
        numbers["expert_count"] = after.num_experts
        if prefix != "llama." or f"{prefix}expert_feed_forward_length" in fields:
            numbers["expert_feed_forward_length"] = after.expert_feed_forward
        if f"{prefix}expert_shared_feed_forward_length" in fields:
            numbers["expert_shared_feed_forward_length"] = after.shared_feed_forward
    if f"{prefix}leading_dense_block_count" in fields:
        numbers["leading_dense_block_count"] = len({*layers} - anatomy.expert_layers)
    if not anatomy.is_encoder:
        numbers["attention.head_count"] = after.num_heads
        kv_heads = fields.get(f"{prefix}attention.head_count_kv")
        # With a latent there may be one that all heads share.
        if kv_heads is None or kv_heads.value == before.num_kv_heads:
            numbers["attention.head_count_kv"] = after.num_kv_heads
        if not anatomy.has_latent:  # else they would be worked out from the number of heads
            numbers["attention.key_length"] = after.head_dim
            numbers["attention.value_length"] = after.head_dim
    if prefix == "deepseek2." and f"{prefix}expert_gating_func" not in fields:
        numbers["expert_gating_func"] = _SOFTMAX
    return result | {prefix + key: Field.of(number) for key, number in numbers.items()}


def check_result(
    source: ModelSource,
    before: AnyConfig,
    fields: Mapping[str, Field],
    tensors: Mapping[str, TensorInfo],
    layers: tuple[int, ...],
    path: str,
) -> float:
    """
    Read what will be written as a loader will: nothing but sizes may have changed.

    Returns:
        What queries must be multiplied with, to be scaled as they were: readers scale those of a
        Gemma of 46 or 62 blocks by other sizes than those of others, and no key says so.

    Args:
        source, before: the input and its configuration.
        fields, tensors: of the output.
        layers: the blocks that stay.

    Raises:
        UnsupportedModelError: metadata cannot say what the cut model is; names what would differ.
    """
    after, weights = read_model(source, fields, tensors, path)
    changed = [
        field.name
        for field in dataclasses.fields(before)
        if field.compare
        and field.name not in _CHANGES
        and getattr(before, field.name) != getattr(after, field.name)
    ]
    expected = tuple(kinds(before)[layer] for layer in layers)
    if kinds(after) != expected:
        changed.append("the kinds of blocks")
    if changed:
        raise UnsupportedModelError(
            f"cut of a {before.architecture} model",
            f"that changes what its file cannot say: {', '.join(changed)}",
        )
    graph = Graph({name: info.shape for name, info in weights.tensors.items()}, path)
    architecture = architectures()[before.architecture]
    graph.program(architecture.build(graph, after))
    return _score_scale(before) / _score_scale(after)


def _score_scale(config: AnyConfig) -> float:
    scale = config.attention_scale if isinstance(config, Config) else None
    return scale or config.head_dim**-0.5


def llama_cpp_refuses(config: AnyConfig, tensors: Mapping[str, TensorInfo], after: Sizes) -> str:
    """
    Why llama.cpp will not open a cut model; "" where it will.

    Args:
        config, tensors: of the model before.
        after: what is left.

    Source: src/models/ of ggml-org/llama.cpp (`load_arch_tensors`; deepseek2.cpp), and its answers
    to cut files, in tests/tools/prune/test_llama_cpp.py.
    """
    fills = after.num_heads * after.head_dim == config.hidden_size
    if config.architecture in _HEADS_FILL and after.num_heads < config.num_heads and not fills:
        return f"it expects the heads of a {config.architecture} model to fill the hidden size"
    if config.architecture == "deepseek2" and after.num_layers < config.num_layers:
        is_lite = "blk.0.attn_q.weight" in tensors
        if is_lite != (after.num_layers in _LITE):
            return "it takes a DeepSeek model of 26 or 27 blocks, and no other, for a V2-Lite"
    return ""
