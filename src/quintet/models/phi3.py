"""Phi-3 and Phi-4-mini decoders.  Differ from Llama in three places: q, k and v are one matrix and
so are gate and up, a layer may see a window only, and the models for long texts divide their rotary
frequencies by one list of factors for short texts and by another for long ones.

Which list it is follows from the length that the model is run for: see `_rope.scaled_from_hf`.

Source: Phi-3, arXiv:2404.14219, section 2; Ding et al. 2024, arXiv:2402.13753 (LongRoPE).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import MAX_CONTEXT, Config, Keys
from quintet.models._registry import Architecture


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    widths = [c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim]
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        q, k, v = g.split(_blocks.linear(w, h, "attn_qkv"), *widths)
        x = g.add(x, _blocks.attend(w, q, k, v, layer, c))
        h = w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.fused_swiglu(w, h))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "phi3.", path)
    config = _decoder.from_gguf(metadata, source, "phi3", rope_interleaved=False, path=path)
    return _with_window(config, keys, "attention.sliding_window")


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    values = dict(config)
    # Older configurations call long rope by other names.
    for name in ("rope_scaling", "rope_parameters"):
        rope = values.get(name)
        if isinstance(rope, Mapping) and rope.get("rope_type", rope.get("type")) in ("su", "yarn"):
            values[name] = {**rope, "rope_type": "longrope"}
    keys = Keys(values, path=path)
    found = _decoder.from_hf(
        values, source, "phi3", path=path, partial_rotary=True, has_windows=True
    )
    return _with_window(found, keys, "sliding_window")


def _with_window(config: Config, keys: Keys, name: str) -> Config:
    if not keys.values.get(keys.prefix + name):  # llama.cpp writes 0 for none
        return config
    window = keys.integer(name, maximum=MAX_CONTEXT)
    return dataclasses.replace(config, windows=(window - 1,) * config.num_layers)


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    keys = _to_gguf.decoder(config, source, fused_gate=True)
    # llama.cpp wants both keys of every Phi-3; 0 for no window.
    keys.setdefault("rope.scaling.original_context_length", config.context_length)
    return {**keys, "attention.sliding_window": 0, **_to_gguf.window(config)}


ARCHITECTURE = Architecture(
    name="phi3",
    hf_names=("Phi3ForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **_decoder.hf_names_without("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"),
        "blk.{i}.attn_qkv.weight": "model.layers.{i}.self_attn.qkv_proj.weight",
        "blk.{i}.ffn_up.weight": "model.layers.{i}.mlp.gate_up_proj.weight",
    },
)
