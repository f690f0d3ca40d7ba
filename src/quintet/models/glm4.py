"""GLM-4-0414 decoder.  Differs from Llama in four places: what a block adds is normalised too, only
a part of each head is rotated, in pairs of neighbours, q, k and v have biases, and gate and up are
one matrix.

Source: Glm4Config and its model in transformers; GLM-4, arXiv:2406.12793, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import Config
from quintet.models._registry import Architecture


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        h = _blocks.attend(w, *_blocks.qkv(w, h), layer, c)
        x = g.add(x, w.rms_norm(h, "post_attention_norm", eps=c.rms_norm_eps))
        h = _blocks.fused_swiglu(w, w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps))
        x = g.add(x, w.rms_norm(h, "post_ffw_norm", eps=c.rms_norm_eps))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    if metadata.get("glm4.rope.dimension_sections"):
        raise UnsupportedModelError("rotary embedding", "in sections, for images")
    return _decoder.from_gguf(metadata, source, "glm4", rope_interleaved=True, path=path)


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    values = {"partial_rotary_factor": 0.5, **config}
    return _decoder.from_hf(
        values, source, "glm4", path=path, partial_rotary=True, rope_interleaved=True
    )


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    return _to_gguf.decoder(config, source, fused_gate=True)


ARCHITECTURE = Architecture(
    name="glm4",
    hf_names=("Glm4ForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **_decoder.hf_names_without("ffn_gate", "ffn_up"),
        "blk.{i}.post_attention_norm.weight": "model.layers.{i}.post_self_attn_layernorm.weight",
        "blk.{i}.post_ffw_norm.weight": "model.layers.{i}.post_mlp_layernorm.weight",
        "blk.{i}.ffn_up.weight": "model.layers.{i}.mlp.gate_up_proj.weight",
    },
)
