"""What Llama-shaped decoders share: how their configuration is stored, and tensor names.

Knows no architecture; a model file says what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.models import _rope
from quintet.models._config import MAX_CONTEXT, MAX_LAYERS, MAX_WIDTH, Config, Keys

ROPE_FACTORS = "rope_freqs.weight"

# GGUF name -> Hugging Face name, `{i}` being the layer.
LLAMA_HF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.{i}.attn_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "blk.{i}.attn_q.weight": "model.layers.{i}.self_attn.q_proj.weight",
    "blk.{i}.attn_k.weight": "model.layers.{i}.self_attn.k_proj.weight",
    "blk.{i}.attn_v.weight": "model.layers.{i}.self_attn.v_proj.weight",
    "blk.{i}.attn_q.bias": "model.layers.{i}.self_attn.q_proj.bias",
    "blk.{i}.attn_k.bias": "model.layers.{i}.self_attn.k_proj.bias",
    "blk.{i}.attn_v.bias": "model.layers.{i}.self_attn.v_proj.bias",
    "blk.{i}.attn_output.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "blk.{i}.ffn_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blk.{i}.ffn_gate.weight": "model.layers.{i}.mlp.gate_proj.weight",
    "blk.{i}.ffn_up.weight": "model.layers.{i}.mlp.up_proj.weight",
    "blk.{i}.ffn_down.weight": "model.layers.{i}.mlp.down_proj.weight",
}


def from_gguf(
    metadata: Mapping[str, Any],
    source: WeightSource,
    architecture: str,
    *,
    rope_interleaved: bool,
    path: str | None = None,
) -> Config:
    """Read a decoder's configuration from GGUF metadata.

    Source: the "LLM" keys of the GGUF specification (docs/gguf.md of the ggml project).

    Raises:
        ModelFormatError: a key is missing, mistyped or out of range.
    """
    keys = Keys(metadata, architecture + ".", path)
    hidden_size = keys.integer("embedding_length", maximum=MAX_WIDTH)
    num_heads = keys.integer("attention.head_count", maximum=MAX_WIDTH)
    head_dim = keys.integer(
        "attention.key_length", maximum=MAX_WIDTH, default=max(1, hidden_size // num_heads)
    )
    value_dim = keys.integer("attention.value_length", maximum=MAX_WIDTH, default=head_dim)
    if value_dim != head_dim:
        raise UnsupportedModelError(
            "attention with value heads of another size", f"{value_dim}, keys {head_dim}"
        )
    rotary_dim = keys.integer("rope.dimension_count", maximum=head_dim, default=head_dim)
    inv_freq = _rope.inverse_frequencies(keys.number("rope.freq_base", default=10000.0), rotary_dim)
    inv_freq = _rope.scale_from_gguf(inv_freq, keys)
    if ROPE_FACTORS in source.tensors:
        inv_freq = _rope.divide(inv_freq, source.dequantized(ROPE_FACTORS).ravel().tolist(), path)
    return Config(
        architecture=architecture,
        num_layers=keys.integer("block_count", maximum=MAX_LAYERS),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=keys.integer("attention.head_count_kv", maximum=num_heads, default=num_heads),
        head_dim=head_dim,
        vocab_size=_vocab_size(source),
        context_length=keys.integer("context_length", maximum=MAX_CONTEXT),
        rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        rope_inv_freq=inv_freq,
        rope_interleaved=rope_interleaved,
        rope_attention_factor=1.0,
        tie_word_embeddings="output.weight" not in source.tensors,
        qkv_bias="blk.0.attn_q.bias" in source.tensors,
    )


def from_hf(
    config: Mapping[str, Any], source: WeightSource, architecture: str, *, path: str | None = None
) -> Config:
    """Read a decoder's configuration from config.json; `source` already has GGUF names.

    Raises:
        ModelFormatError: a key is missing, mistyped or out of range.
        UnsupportedModelError: an activation or a rope variant that is not ours yet.
    """
    keys = Keys(config, path=path)
    hidden_size = keys.integer("hidden_size", maximum=MAX_WIDTH)
    num_heads = keys.integer("num_attention_heads", maximum=MAX_WIDTH)
    head_dim = keys.integer("head_dim", maximum=MAX_WIDTH, default=max(1, hidden_size // num_heads))
    if config.get("hidden_act", "silu") != "silu":
        raise UnsupportedModelError("activation", str(config["hidden_act"]), ("silu",))
    # transformers 5 gathers theta and scaling in rope_parameters; before, they stood apart.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise keys.error("rope_scaling", f"expected an object, found {rope!r}")
    theta_keys = Keys(rope, path=path) if "rope_theta" in rope else keys
    inv_freq = _rope.inverse_frequencies(theta_keys.number("rope_theta", default=10000.0), head_dim)
    context_length = keys.integer("max_position_embeddings", maximum=MAX_CONTEXT)
    if keys.has("sliding_window") and config.get("use_sliding_window", True):
        # Up to its window such a model is an ordinary one; past it we would run it wrong.
        context_length = min(context_length, keys.integer("sliding_window", maximum=MAX_CONTEXT))
    if config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UnsupportedModelError("partial rotary embedding", path or "config.json")
    return Config(
        architecture=architecture,
        num_layers=keys.integer("num_hidden_layers", maximum=MAX_LAYERS),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=keys.integer("num_key_value_heads", maximum=num_heads, default=num_heads),
        head_dim=head_dim,
        vocab_size=_vocab_size(source),
        context_length=context_length,
        rms_norm_eps=keys.number("rms_norm_eps", default=1e-6),
        rope_inv_freq=_rope.scale_from_hf(inv_freq, rope, keys),
        rope_interleaved=False,
        rope_attention_factor=1.0,
        tie_word_embeddings="output.weight" not in source.tensors,
        qkv_bias="blk.0.attn_q.bias" in source.tensors,
    )


def _vocab_size(source: WeightSource) -> int:
    """Rows of the embedding; metadata may count fewer where the table is padded."""
    embedding = source.tensors.get("token_embd.weight")
    return 1 if embedding is None else embedding.shape[0]
