"""Qwen2 decoder.  Differs from Llama in two places: q, k and v have biases, and rotary
pairs stay half a head apart.

Source: Qwen2 technical report, arXiv:2407.10671, section 2.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Rotary, Scope, Tensor
from quintet.models import _decoder, _to_gguf
from quintet.models._config import Config
from quintet.models._registry import Architecture


def attention(w: Scope, x: Tensor, layer: int, c: Config) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    rotary = Rotary(c.rope_inv_freq, c.rope_interleaved, c.rope_attention_factor)
    q, k = w.linear(x, "attn_q", bias=True), w.linear(x, "attn_k", bias=True)
    v = w.linear(x, "attn_v", bias=True)
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
    return g.root.linear(x, "token_embd" if c.tie_word_embeddings else "output")


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    return _decoder.from_gguf(metadata, source, "qwen2", rope_interleaved=False, path=path)


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    return _decoder.from_hf(config, source, "qwen2", path=path)


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    return _to_gguf.decoder(config, source)


ARCHITECTURE = Architecture(
    name="qwen2",
    hf_names=("Qwen2ForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names=_decoder.LLAMA_HF_NAMES,
)
