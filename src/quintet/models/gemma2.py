"""Gemma 2 decoder: every second layer sees a window, scores and logits are capped, and what a block
adds is normalised too.  Norms scale by 1 + weight; GGUF has the 1 added.

GGUF does not say how queries are scaled: by 1 / sqrt(head_dim), but in the model of 46 layers by
1 / sqrt(hidden_size / num_heads).

Source: Gemma 2, arXiv:2408.00118, section 2; llama.cpp, src/llama-model.cpp.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Scope, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import MAX_LAYERS, Config, Keys
from quintet.models._derived import norms_plus_one
from quintet.models._registry import Architecture

_LAYERS_OF_27B = 46


def mlp(w: Scope, x: Tensor) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    gate, up = w.linear(x, "ffn_gate"), w.linear(x, "ffn_up")
    return w.linear(w.graph.gelu_tanh_mul(gate, up), "ffn_down")


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.scale(g.root.embed("token_embd"), c.embedding_scale)
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        h = _blocks.attend(w, *_blocks.qkv(w, h), layer, c)
        x = g.add(x, w.rms_norm(h, "post_attention_norm", eps=c.rms_norm_eps))
        h = mlp(w, w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps))
        x = g.add(x, w.rms_norm(h, "post_ffw_norm", eps=c.rms_norm_eps))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "gemma2.", path)
    num_layers = keys.integer("block_count", maximum=MAX_LAYERS)
    windows = _decoder.windows_from_gguf(keys, num_layers, period=2)
    caps: dict[str, Any] = {
        field: keys.number(key, default=default)
        for field, key, default in (
            ("attention_softcap", "attn_logit_softcapping", 50.0),
            ("logit_softcap", "final_logit_softcapping", 30.0),
        )
    }
    scale = query_scale_from_gguf(keys, num_layers == _LAYERS_OF_27B)
    config = _decoder.from_gguf(
        metadata,
        source,
        "gemma2",
        rope_interleaved=False,
        path=path,
        windows=windows,
        attention_scale=scale,
        **caps,
    )
    return with_embedding_scale(config)


def query_scale_from_gguf(keys: Keys, by_hidden_size: bool) -> float | None:
    """The scale of scores, where it is not 1 / sqrt(head_dim)."""
    if keys.has("attention.scale"):
        return keys.number("attention.scale")
    if not by_hidden_size:
        return None
    hidden_size = keys.number("embedding_length")
    return (hidden_size / keys.number("attention.head_count")) ** -0.5


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(config, path=path)
    num_layers = keys.integer("num_hidden_layers", maximum=MAX_LAYERS)
    default = [layer % 2 == 0 for layer in range(num_layers)]
    return with_embedding_scale(
        _decoder.from_hf(
            config,
            source,
            "gemma2",
            path=path,
            **common_from_hf(keys),
            windows=_decoder.windows_from_hf(keys, num_layers, default),
        )
    )


def common_from_hf(keys: Keys) -> dict[str, Any]:
    """What Gemma's configurations say in one way."""
    if keys.values.get("use_bidirectional_attention"):
        raise UnsupportedModelError("attention", "use_bidirectional_attention")
    caps = {
        field: keys.number(key) if keys.has(key) else 0.0
        for field, key in (
            ("attention_softcap", "attn_logit_softcapping"),
            ("logit_softcap", "final_logit_softcapping"),
        )
    }
    return {
        "activation": ("hidden_activation", "gelu_pytorch_tanh"),
        "has_windows": True,
        "attention_scale": keys.number("query_pre_attn_scalar", default=256.0) ** -0.5,
        **caps,
    }


def with_embedding_scale(config: Config) -> Config:
    """Embeddings are multiplied by sqrt(hidden_size)."""
    return dataclasses.replace(config, embedding_scale=config.hidden_size**0.5)


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    if not config.tie_word_embeddings:
        raise UnsupportedModelError("to write as GGUF", "a Gemma 2 with an output matrix")
    keys = _to_gguf.decoder(config, source)
    return {**keys, **_to_gguf.window(config), **_to_gguf.softcaps(config)}


WEIGHT_NAMES = {
    **_decoder.LLAMA_HF_NAMES,
    "blk.{i}.post_attention_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blk.{i}.ffn_norm.weight": "model.layers.{i}.pre_feedforward_layernorm.weight",
    "blk.{i}.post_ffw_norm.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}

ARCHITECTURE = Architecture(
    name="gemma2",
    hf_names=("Gemma2ForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names=WEIGHT_NAMES,
    hf_weights=norms_plus_one,
)
