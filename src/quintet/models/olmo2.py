"""OLMo 2 decoder.  Differs from Llama in two places: norms stand behind attention and feed-forward
instead of before them, and q and k are normalised, each over its whole row.

Source: OLMo 2, arXiv:2501.00656, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _decoder
from quintet.models._config import Config
from quintet.models._registry import Architecture


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        q, k, v = _decoder.qkv(w, x)
        q = w.rms_norm(q, "attn_q_norm", eps=c.rms_norm_eps)
        k = w.rms_norm(k, "attn_k_norm", eps=c.rms_norm_eps)
        h = _decoder.attend(w, q, k, v, layer, c)
        x = g.add(x, w.rms_norm(h, "post_attention_norm", eps=c.rms_norm_eps))
        h = _decoder.swiglu(w, x)
        x = g.add(x, w.rms_norm(h, "post_ffw_norm", eps=c.rms_norm_eps))
    return _decoder.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    window = metadata.get("olmo2.attention.sliding_window")
    if window:  # OLMo 3 is stored under the same name
        raise UnsupportedModelError("OLMo 3 in GGUF", f"sliding_window {window}")
    return _decoder.from_gguf(metadata, source, "olmo2", rope_interleaved=False, path=path)


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    return _decoder.from_hf(config, source, "olmo2", path=path, default_theta=500000.0)


ARCHITECTURE = Architecture(
    name="olmo2",
    hf_names=("Olmo2ForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    build=build,
    weight_names={
        **_decoder.hf_names_without("attn_norm", "ffn_norm"),
        "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
        "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
        "blk.{i}.post_attention_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
        "blk.{i}.post_ffw_norm.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
    },
)
