"""Qwen3 decoder with a mixture of experts: each token goes to the best few by the router's softmax,
whose weights are divided by their sum.  Some layers may have an ordinary feed-forward.

Source: Qwen3 technical report, arXiv:2505.09388, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import Config, Keys
from quintet.models._derived import stacked_experts
from quintet.models._registry import Architecture


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        q, k, v = _blocks.qkv(w, w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps))
        q = w.rms_norm(q, "attn_q_norm", eps=c.rms_norm_eps)
        k = w.rms_norm(k, "attn_k_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.attend(w, q, k, v, layer, c))
        h = w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.moe(w, h, c) if _blocks.has_experts(w) else _blocks.swiglu(w, h))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    used = _decoder.experts_used(Keys(metadata, "qwen3moe.", path), "expert_used_count")
    return _decoder.from_gguf(
        metadata, source, "qwen3moe", rope_interleaved=False, path=path, num_experts_used=used
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(config, path=path)
    return _decoder.from_hf(
        config,
        source,
        "qwen3moe",
        path=path,
        num_experts_used=_decoder.experts_used(keys, "num_experts_per_tok"),
        expert_weights_normalized=keys.flag("norm_topk_prob", default=False),
    )


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    _to_gguf.all_mixed(config, source)
    return _to_gguf.decoder(config, source)


ARCHITECTURE = Architecture(
    name="qwen3moe",
    hf_names=("Qwen3MoeForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **_decoder.LLAMA_HF_NAMES,
        "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
        "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
        "blk.{i}.ffn_gate_inp.weight": "model.layers.{i}.mlp.gate.weight",
        **{
            f"blk.{{i}}.ffn_{part}_exps.{{e}}.weight": (
                f"model.layers.{{i}}.mlp.experts.{{e}}.{part}_proj.weight"
            )
            for part in ("gate", "up", "down")
        },
    },
    hf_weights=stacked_experts,
)
