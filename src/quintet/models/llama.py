"""Llama decoder; Mistral 7B and SmolLM2 have the same shape, and Mixtral but for its experts.

GGUF stores q and k with the rows of each head permuted so that rotary pairs
are neighbours; Hugging Face keeps pairs half a head apart.

Source: Llama 2, arXiv:2307.09288, section 2.2; Llama 3, arXiv:2407.21783, section 3.2; Mixtral,
arXiv:2401.04088, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Rotary, Scope, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import Config, Keys
from quintet.models._derived import stacked_experts
from quintet.models._registry import Architecture


def attention(w: Scope, x: Tensor, layer: int, c: Config) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    rotary = Rotary(c.rope_inv_freq, c.rope_interleaved, c.rope_attention_factor)
    q, k = w.linear(x, "attn_q", bias=c.qkv_bias), w.linear(x, "attn_k", bias=c.qkv_bias)
    v = w.linear(x, "attn_v", bias=c.qkv_bias)
    q = w.graph.rope(q, head_dim=c.head_dim, rotary=rotary)
    k = w.graph.rope(k, head_dim=c.head_dim, rotary=rotary)
    y = w.graph.attention(q, k, v, layer=layer, num_heads=c.num_heads, num_kv_heads=c.num_kv_heads)
    return w.linear(y, "attn_output")


def mlp(w: Scope, x: Tensor) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    return w.linear(w.graph.silu_mul(w.linear(x, "ffn_gate"), w.linear(x, "ffn_up")), "ffn_down")


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        x = g.add(x, attention(w, h, layer, c))
        h = w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.moe(w, h, c) if _blocks.has_experts(w) else mlp(w, h))
    x = g.root.rms_norm(g.select_rows(x), "output_norm", eps=c.rms_norm_eps)
    return g.root.linear(x, "token_embd" if c.tie_word_embeddings else "output")


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    used = _decoder.experts_used(Keys(metadata, "llama.", path), "expert_used_count")
    return _decoder.from_gguf(
        metadata, source, "llama", rope_interleaved=True, path=path, num_experts_used=used
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    used = _decoder.experts_used(Keys(config, path=path), "num_experts_per_tok")
    return _decoder.from_hf(config, source, "llama", path=path, num_experts_used=used)


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    _to_gguf.all_mixed(config, source)
    return _to_gguf.decoder(config, source)


ARCHITECTURE = Architecture(
    name="llama",
    hf_names=("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **_decoder.LLAMA_HF_NAMES,
        "blk.{i}.ffn_gate_inp.weight": "model.layers.{i}.block_sparse_moe.gate.weight",
        **{
            f"blk.{{i}}.ffn_{ours}_exps.{{e}}.weight": (
                f"model.layers.{{i}}.block_sparse_moe.experts.{{e}}.{theirs}.weight"
            )
            for ours, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
        },
    },
    hf_weights=stacked_experts,
)
