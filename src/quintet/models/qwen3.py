"""Qwen3 dense decoder.  Differs from Qwen2 in one place: no biases, but q and k are
RMS-normalised per head before RoPE.  Qwen3-Embedding is the same model; a Qwen3-Reranker in a GGUF
file has the rows of "yes" and "no" of its head as a classifier.

Source: Qwen3 technical report, arXiv:2505.09388, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Rotary, Scope, Tensor
from quintet.models import _decoder, _to_gguf
from quintet.models._config import Config
from quintet.models._encoder import SCORES
from quintet.models._registry import Architecture


def attention(w: Scope, x: Tensor, layer: int, c: Config) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    rotary = Rotary(c.rope_inv_freq, c.rope_interleaved, c.rope_attention_factor)
    q, k = w.linear(x, "attn_q"), w.linear(x, "attn_k")
    v = w.linear(x, "attn_v")
    q = w.rms_norm(q, "attn_q_norm", eps=c.rms_norm_eps)
    k = w.rms_norm(k, "attn_k_norm", eps=c.rms_norm_eps)
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
        x = g.add(x, mlp(w, h))
    x = g.root.rms_norm(g.select_rows(x), "output_norm", eps=c.rms_norm_eps)
    if g.has(SCORES):  # a reranker: its labels rather than tokens
        return g.root.linear(x, "cls.output")
    return g.root.linear(x, "token_embd" if c.tie_word_embeddings else "output")


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    return _decoder.from_gguf(metadata, source, "qwen3", rope_interleaved=False, path=path)


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    return _decoder.from_hf(config, source, "qwen3", path=path)


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    return _to_gguf.decoder(config, source)


ARCHITECTURE = Architecture(
    name="qwen3",
    hf_names=("Qwen3ForCausalLM", "Qwen3Model"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **_decoder.LLAMA_HF_NAMES,
        "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
        "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    },
    hf_prefix="model.",
)
