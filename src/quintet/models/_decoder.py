"""What Llama-shaped decoders share: how their configuration is stored, and tensor names.

Knows no architecture; a model file says what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.models import _rope
from quintet.models._config import MAX_CONTEXT, MAX_EXPERTS, MAX_LAYERS, MAX_WIDTH, Config, Keys
from quintet.models._stored_rope import stored_rope

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
    "blk.{i}.attn_output.bias": "model.layers.{i}.self_attn.o_proj.bias",
    "blk.{i}.attn_output.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "blk.{i}.ffn_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blk.{i}.ffn_gate.weight": "model.layers.{i}.mlp.gate_proj.weight",
    "blk.{i}.ffn_up.weight": "model.layers.{i}.mlp.up_proj.weight",
    "blk.{i}.ffn_down.weight": "model.layers.{i}.mlp.down_proj.weight",
}


def hf_names_without(*modules: str) -> dict[str, str]:
    """LLAMA_HF_NAMES but for these modules of a block, e.g. "ffn_norm"."""
    left_out = tuple(f"blk.{{i}}.{module}." for module in modules)
    return {ours: hf for ours, hf in LLAMA_HF_NAMES.items() if not ours.startswith(left_out)}


def from_gguf(
    metadata: Mapping[str, Any],
    source: WeightSource,
    architecture: str,
    *,
    rope_interleaved: bool,
    path: str | None = None,
    yarn_truncate: bool = True,
    **fields: Any,
) -> Config:
    """Read a decoder's configuration from GGUF metadata.

    Args:
        yarn_truncate: see `_rope.scaled_from_gguf`.
        fields: of Config, that are the architecture's own.

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
    context_length = keys.integer("context_length", maximum=MAX_CONTEXT)
    rope = _rope.scaled_from_gguf(
        keys.number("rope.freq_base", default=10000.0),
        keys.integer("rope.dimension_count", maximum=head_dim, default=head_dim),
        keys,
        source,
        context_length,
        yarn_truncate=yarn_truncate,
    )
    common: dict[str, Any] = {
        "architecture": architecture,
        "num_layers": keys.integer("block_count", maximum=MAX_LAYERS),
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "num_kv_heads": keys.integer(
            "attention.head_count_kv", maximum=num_heads, default=num_heads
        ),
        "head_dim": head_dim,
        "vocab_size": _vocab_size(source),
        "context_length": context_length,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_interleaved": rope_interleaved,
        **_rope_fields(rope),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "qkv_bias": "blk.0.attn_q.bias" in source.tensors,
    }
    return Config(**{**common, **fields})


def from_hf(
    config: Mapping[str, Any],
    source: WeightSource,
    architecture: str,
    *,
    path: str | None = None,
    activation: tuple[str, str] = ("hidden_act", "silu"),
    has_windows: bool = False,
    partial_rotary: bool = False,
    rotary_dim: int | None = None,
    default_theta: float = 10000.0,
    **fields: Any,
) -> Config:
    """Read a decoder's configuration from config.json; `source` already has GGUF names.

    Args:
        activation: the key of the activation function, and what it must be.
        has_windows: whether the architecture's own code reads `sliding_window`.
        partial_rotary: the same of `partial_rotary_factor`.
        rotary_dim: what is rotated of a head, where the architecture has a key of its own for it.
        fields: of Config, that are the architecture's own.

    Raises:
        ModelFormatError: a key is missing, mistyped or out of range.
        UnsupportedModelError: an activation or a rope variant that is not ours yet.
    """
    keys = Keys(config, path=path)
    hidden_size = keys.integer("hidden_size", maximum=MAX_WIDTH)
    num_heads = keys.integer("num_attention_heads", maximum=MAX_WIDTH)
    head_dim = keys.integer("head_dim", maximum=MAX_WIDTH, default=max(1, hidden_size // num_heads))
    key, expected = activation
    if config.get(key, expected) != expected:
        raise UnsupportedModelError("activation", str(config[key]), (expected,))
    # transformers 5 gathers theta and scaling in rope_parameters; before, they stood apart.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise keys.error("rope_scaling", f"expected an object, found {rope!r}")
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise UnsupportedModelError("rope_parameters", f"by kind of layer: {', '.join(rope)}")
    theta_keys = Keys(rope, path=path) if "rope_theta" in rope else keys
    context_length = longest = keys.integer("max_position_embeddings", maximum=MAX_CONTEXT)
    if not has_windows and keys.has("sliding_window") and config.get("use_sliding_window", True):
        # Up to its window such a model is an ordinary one; past it we would run it wrong.
        context_length = min(context_length, keys.integer("sliding_window", maximum=MAX_CONTEXT))
    part_keys = Keys(rope, path=path) if "partial_rotary_factor" in rope else keys
    part = part_keys.number("partial_rotary_factor", default=1.0)
    if part > 1 or (part != 1 and not partial_rotary):
        raise UnsupportedModelError("partial rotary embedding", path or "config.json")
    theta = theta_keys.number("rope_theta", default=default_theta)
    rotary_dim = rotary_dim or int(head_dim * part)
    scaled = _rope.scaled_from_hf(theta, rotary_dim, rope, keys, longest)
    common: dict[str, Any] = {
        "architecture": architecture,
        "num_layers": keys.integer("num_hidden_layers", maximum=MAX_LAYERS),
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "num_kv_heads": keys.integer("num_key_value_heads", maximum=num_heads, default=num_heads),
        "head_dim": head_dim,
        "vocab_size": _vocab_size(source),
        "context_length": context_length,
        "rms_norm_eps": keys.number("rms_norm_eps", default=1e-6),
        "rope_interleaved": False,
        **_rope_fields(scaled),
        "stored_rope": stored_rope(theta, rotary_dim, rope, scaled, keys, longest),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "qkv_bias": "blk.0.attn_q.bias" in source.tensors,
    }
    return Config(**{**common, **fields})


def rope_by_kind(
    config: Mapping[str, Any], path: str | None, *, theta: float, local_theta: Any
) -> tuple[dict[str, Any], float]:
    """The `rope_parameters` of layers that see all tokens, and the theta of those with a window.

    Args:
        theta: of the former, where the configuration has none.
        local_theta: of the latter, where it has rope parameters of one kind only.
    """
    keys = Keys(config, path=path)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = ("full_attention", "sliding_attention")
    if not isinstance(rope, Mapping):
        raise keys.error("rope_parameters", f"expected an object, found {rope!r}")
    if not any(kind in rope for kind in kinds):
        rope = {
            "full_attention": {"rope_theta": config.get("rope_theta", theta), **rope},
            "sliding_attention": {"rope_theta": local_theta},
        }
    if not all(isinstance(rope.get(kind), Mapping) for kind in kinds):
        raise keys.error("rope_parameters", f"expected {' and '.join(kinds)}, found {rope!r}")
    local = Keys(rope["sliding_attention"], path=path)
    if local.values.get("rope_type", "default") != "default":
        raise UnsupportedModelError("rope scaling of layers with a window", str(dict(local.values)))
    return dict(rope["full_attention"]), local.number("rope_theta", default=theta)


def experts_used(keys: Keys, name: str) -> int:
    """How many experts a token is sent to; 0 where the model has none."""
    return keys.integer(name, maximum=MAX_EXPERTS) if keys.has(name) else 0


def windows_from_hf(keys: Keys, num_layers: int, default: Sequence[bool]) -> tuple[int | None, ...]:
    """What each layer sees, by `sliding_window` and `layer_types`.

    Args:
        default: whether a layer has a window, where `layer_types` does not say.
    """
    kinds = keys.values.get("layer_types")
    local = list(default)
    if kinds is not None:
        known = {"full_attention": False, "sliding_attention": True}
        if (
            not isinstance(kinds, list)
            or len(kinds) != num_layers
            or not all(isinstance(kind, str) for kind in kinds)
        ):
            raise keys.error("layer_types", f"expected {num_layers} names, found {kinds!r}")
        for kind in kinds:
            if kind not in known:
                raise UnsupportedModelError("kind of layer", kind, known)
        local = [known[kind] for kind in kinds]
    if not any(local) or not keys.has("sliding_window"):
        return ()
    return _windows(local, keys.integer("sliding_window", maximum=MAX_CONTEXT))


def windows_from_gguf(keys: Keys, num_layers: int, period: int) -> tuple[int | None, ...]:
    """What each layer sees: the last of each `period` layers all, the others a window.

    A file may have a `sliding_window_pattern` of its own: a period, or a flag for each layer.
    """
    if not keys.has("attention.sliding_window"):
        return ()
    pattern = keys.values.get(keys.prefix + "attention.sliding_window_pattern")
    if isinstance(pattern, np.ndarray):
        pattern = pattern.tolist()
    if isinstance(pattern, list | tuple):
        if len(pattern) != num_layers or not all(isinstance(flag, bool) for flag in pattern):
            raise keys.error("attention.sliding_window_pattern", f"expected {num_layers} flags")
        local = list(pattern)
    else:
        name = "attention.sliding_window_pattern"
        every = keys.integer(name, maximum=MAX_LAYERS, default=period)
        local = [(layer + 1) % every != 0 for layer in range(num_layers)]
    return _windows(local, keys.integer("attention.sliding_window", maximum=MAX_CONTEXT))


def _windows(local: Sequence[bool], window: int) -> tuple[int | None, ...]:
    """A window counts the token itself."""
    return tuple(window - 1 if flag else None for flag in local)


def _rope_fields(scaled: _rope.Scaled) -> dict[str, Any]:
    return {
        "rope_inv_freq": scaled.inv_freq,
        "rope_attention_factor": scaled.attention_factor,
        "short_inv_freq": scaled.short_inv_freq,
        "short_context_length": scaled.short_context_length,
    }


def _vocab_size(source: WeightSource) -> int:
    """Rows of the embedding; metadata may count fewer where the table is padded."""
    embedding = source.tensors.get("token_embd.weight")
    return 1 if embedding is None else embedding.shape[0]
