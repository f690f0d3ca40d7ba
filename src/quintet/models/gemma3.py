"""Gemma 3 decoder, of the text models and the text part of the others.  Differs from Gemma 2 in
three places: q and k are normalised per head instead of scores being capped, five layers in six see
a window, and those have rotary frequencies of their own.

GGUF does not say how queries are scaled: by 1 / sqrt(head_dim), but in the model of 62 layers by
1 / sqrt(hidden_size / num_heads).

Source: Gemma 3, arXiv:2503.19786, section 2; llama.cpp, src/llama-model.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _rope, _to_gguf
from quintet.models._config import MAX_LAYERS, MAX_WIDTH, Config, Keys
from quintet.models._derived import norms_plus_one
from quintet.models._registry import Architecture
from quintet.models._stored_rope import with_keys
from quintet.models.gemma2 import (
    WEIGHT_NAMES,
    common_from_hf,
    mlp,
    query_scale_from_gguf,
    with_embedding_scale,
)

_LAYERS_OF_27B = 62
_PERIOD = 6


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.scale(g.root.embed("token_embd"), c.embedding_scale)
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        q, k, v = _blocks.qkv(w, h)
        q = w.rms_norm(q, "attn_q_norm", eps=c.rms_norm_eps)
        k = w.rms_norm(k, "attn_k_norm", eps=c.rms_norm_eps)
        h = _blocks.attend(w, q, k, v, layer, c)
        x = g.add(x, w.rms_norm(h, "post_attention_norm", eps=c.rms_norm_eps))
        h = mlp(w, w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps))
        x = g.add(x, w.rms_norm(h, "post_ffw_norm", eps=c.rms_norm_eps))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "gemma3.", path)
    num_layers = keys.integer("block_count", maximum=MAX_LAYERS)
    head_dim = keys.integer("attention.key_length", maximum=MAX_WIDTH)
    local_theta = keys.number("rope.freq_base_swa", default=10000.0)
    cap = "final_logit_softcapping"
    if keys.has("attn_logit_softcapping"):
        raise keys.error("attn_logit_softcapping", "expected none in a Gemma 3 model")
    config = _decoder.from_gguf(
        metadata,
        source,
        "gemma3",
        rope_interleaved=False,
        path=path,
        windows=_decoder.windows_from_gguf(keys, num_layers, _PERIOD),
        local_inv_freq=_rope.inverse_frequencies(local_theta, head_dim),
        attention_scale=query_scale_from_gguf(keys, num_layers == _LAYERS_OF_27B),
        logit_softcap=keys.number(cap) if keys.has(cap) else 0.0,
    )
    return with_embedding_scale(config)


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    values = dict(config.get("text_config") or config)
    keys = Keys(values, path=path)
    values["rope_parameters"], local_theta = _decoder.rope_by_kind(
        values, path, theta=1e6, local_theta=values.get("rope_local_base_freq", 10000.0)
    )
    num_layers = keys.integer("num_hidden_layers", maximum=MAX_LAYERS)
    head_dim = keys.integer("head_dim", maximum=MAX_WIDTH, default=256)
    period = keys.integer("sliding_window_pattern", maximum=MAX_LAYERS, default=_PERIOD)
    default = [(layer + 1) % period != 0 for layer in range(num_layers)]
    # Configurations on the hub leave out what transformers' classes have as defaults.
    defaults = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    defaults |= {"sliding_window": 4096, "max_position_embeddings": 131072}
    values = {**defaults, **values}
    keys = Keys(values, path=path)
    found = _decoder.from_hf(
        values,
        source,
        "gemma3",
        path=path,
        default_theta=1e6,
        **common_from_hf(keys),
        windows=_decoder.windows_from_hf(keys, num_layers, default),
        local_inv_freq=_rope.inverse_frequencies(local_theta, head_dim),
    )
    return with_embedding_scale(with_keys(found, {"rope.freq_base_swa": local_theta}))


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    keys = _to_gguf.decoder(config, source)
    return {**keys, **_to_gguf.window(config), **_to_gguf.softcaps(config)}


ARCHITECTURE = Architecture(
    name="gemma3",
    hf_names=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **WEIGHT_NAMES,
        "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
        "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    },
    hf_weights=norms_plus_one,
    hf_nested={
        "model.language_model.": "model.",
        "language_model.model.": "model.",
        "language_model.lm_head.": "lm_head.",
    },
    # The eyes of the models that have some: text does not pass through them.
    ignored=(
        "model.vision_tower.",
        "vision_tower.",
        "model.multi_modal_projector.",
        "multi_modal_projector.",
    ),
)
