"""Nomic BERT encoder.  Differs from BERT in three places: rotary embedding instead of learned
positions, SwiGLU instead of gelu, and no biases but those of the norms.

Source: Nussbaum et al. 2024, arXiv:2402.01613, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Rotary, Tensor
from quintet.models import _encoder, _rope, _to_gguf
from quintet.models._config import MAX_CONTEXT, MAX_WIDTH, Keys
from quintet.models._encoder import EncoderConfig, both, linear
from quintet.models._registry import Architecture
from quintet.models._stored_rope import stored_rope


def attention(g: Graph, x: Tensor, layer: int, c: EncoderConfig) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    block = f"blk.{layer}"
    rotary = Rotary(c.rope_inv_freq)
    q, k, v = g.split(linear(g, x, block, "attn_qkv"), *[c.hidden_size] * 3)
    q = g.rope(q, head_dim=c.head_dim, rotary=rotary)
    k = g.rope(k, head_dim=c.head_dim, rotary=rotary)
    heads: dict[str, Any] = {"num_heads": c.num_heads, "num_kv_heads": c.num_heads}
    return linear(g, g.attention(q, k, v, layer=layer, **heads, right=None), block, "attn_output")


def mlp(g: Graph, x: Tensor, layer: int) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    block = f"blk.{layer}"
    gate, up = linear(g, x, block, "ffn_gate"), linear(g, x, block, "ffn_up")
    return linear(g, g.silu_mul(gate, up), block, "ffn_down")


def build(g: Graph, c: EncoderConfig) -> Tensor:
    """Token ids -> hidden rows [num_logits_rows, hidden_size]."""
    x = g.root.embed("token_embd")
    if g.has("token_types.weight"):
        x = g.add(x, g.root.embed("token_types", by="type"))
    x = g.root.layer_norm(x, "token_embd_norm", eps=c.layer_norm_eps)
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = g.add(attention(g, x, layer, c), x)
        x = w.layer_norm(h, "attn_output_norm", eps=c.layer_norm_eps)
        h = g.add(mlp(g, x, layer), x)
        x = w.layer_norm(h, "layer_output_norm", eps=c.layer_norm_eps)
    return g.select_rows(x)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> EncoderConfig:
    keys = Keys(metadata, "nomic-bert.", path)
    common = _encoder.common_from_gguf(keys, source)
    head_dim = max(2, common["hidden_size"] // common["num_heads"])
    inv_freq = _rope.inverse_frequencies(keys.number("rope.freq_base"), head_dim)
    return EncoderConfig(
        architecture="nomic-bert", **common, rope_inv_freq=_rope.scale_from_gguf(inv_freq, keys)
    )


# The names of the configuration that came with the first checkpoints, and those of transformers.
_RENAMED = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> EncoderConfig:
    values = {_RENAMED.get(name, name): value for name, value in config.items()}
    as_published = {
        "activation_function": "swiglu",
        "causal": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "scale_attn_by_inverse_layer_idx": False,
        "use_rms_norm": False,
    }
    _encoder.refuse(values, as_published)
    if values.get("num_experts") or values.get("rotary_scaling_factor"):
        raise UnsupportedModelError("variant of nomic_bert", path or "config.json")
    keys = Keys(values, path=path)
    common = _encoder.common_from_hf(
        keys, source, layer_norm_eps="layer_norm_eps", activation="hidden_act", expected="silu"
    )
    head_dim = max(2, common["hidden_size"] // common["num_heads"])
    if keys.integer("head_dim", maximum=MAX_WIDTH, default=head_dim) != head_dim:
        raise UnsupportedModelError("head_dim", str(values["head_dim"]), (str(head_dim),))
    rope = values.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise keys.error("rope_parameters", f"expected an object, found {rope!r}")
    rope_keys = Keys(rope, path=path) if "rope_theta" in rope else keys
    name = "rope_theta" if "rope_theta" in rope else "rotary_emb_base"
    theta = rope_keys.number(name, default=1000.0)
    inv_freq = _rope.scale_from_hf(_rope.inverse_frequencies(theta, head_dim), rope, keys)
    scaled = _rope.Scaled(inv_freq)
    if keys.has("max_trained_positions"):
        # Beyond, the model's own code changes the frequencies; we would run it wrong.
        trained = keys.integer("max_trained_positions", maximum=MAX_CONTEXT)
        common["context_length"] = min(common["context_length"], trained)
    return EncoderConfig(
        architecture="nomic-bert",
        **common,
        rope_inv_freq=inv_freq,
        rope_keys=stored_rope(theta, head_dim, rope, scaled, keys, common["context_length"]).keys,
    )


def to_gguf(config: EncoderConfig, source: WeightSource) -> dict[str, Any]:
    return {**_to_gguf.encoder(config, source), **config.rope_keys}


ARCHITECTURE = Architecture(
    name="nomic-bert",
    hf_names=("NomicBertModel", "NomicBertForMaskedLM", "NomicBertForPreTraining"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        "token_embd.weight": "bert.embeddings.word_embeddings.weight",
        "token_types.weight": "bert.embeddings.token_type_embeddings.weight",
        **both("token_embd_norm", "bert.emb_ln"),
        "blk.{i}.attn_qkv.weight": "bert.encoder.layers.{i}.attn.Wqkv.weight",
        "blk.{i}.attn_output.weight": "bert.encoder.layers.{i}.attn.out_proj.weight",
        **both("blk.{i}.attn_output_norm", "bert.encoder.layers.{i}.norm1"),
        "blk.{i}.ffn_up.weight": "bert.encoder.layers.{i}.mlp.fc11.weight",
        "blk.{i}.ffn_gate.weight": "bert.encoder.layers.{i}.mlp.fc12.weight",
        "blk.{i}.ffn_down.weight": "bert.encoder.layers.{i}.mlp.fc2.weight",
        **both("blk.{i}.layer_output_norm", "bert.encoder.layers.{i}.norm2"),
    },
    hf_prefix="bert.",
    ignored=("cls.", "pooler.", "bert.pooler."),
)
