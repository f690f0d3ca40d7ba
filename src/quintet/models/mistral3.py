"""Ministral 3 decoder, and the text part of Mistral Small 3.1: Llama whose queries grow with the
logarithm of their position past the length of its first training.

Source: Ministral3Config and its model in transformers; Meta AI 2025, Llama 4 (scaled queries).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _rope, _to_gguf
from quintet.models._config import MAX_CONTEXT, Config, Keys
from quintet.models._registry import Architecture


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        q, k, v = _blocks.qkv(w, w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps))
        if c.query_growth:
            # Rotation keeps lengths, so that it may come before or after.
            q = g.scale_by_position(q, growth=c.query_growth, period=c.query_growth_period)
        x = g.add(x, _blocks.attend(w, q, k, v, layer, c))
        h = w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.swiglu(w, h))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "mistral3.", path)
    growth: dict[str, Any] = {}
    if metadata.get("mistral3.attention.temperature_scale"):
        period = keys.integer("rope.scaling.original_context_length", maximum=MAX_CONTEXT)
        growth = {
            "query_growth": keys.number("attention.temperature_scale"),
            "query_growth_period": period,
        }
    return _decoder.from_gguf(
        metadata, source, "mistral3", rope_interleaved=True, path=path, **growth
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    values = config.get("text_config") or config
    keys = Keys(values, path=path)
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    growth: dict[str, Any] = {}
    if isinstance(rope, Mapping) and rope.get("llama_4_scaling_beta"):
        rope_keys = Keys(rope, path=path)
        period = rope_keys.integer("original_max_position_embeddings", maximum=MAX_CONTEXT)
        growth = {
            "query_growth": rope_keys.number("llama_4_scaling_beta"),
            "query_growth_period": period,
        }
    if values.get("model_type", "ministral3") not in ("ministral3", "mistral"):
        raise UnsupportedModelError("text model", str(keys.values["model_type"]))
    return _decoder.from_hf(values, source, "mistral3", path=path, **growth)


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    keys = _to_gguf.decoder(config, source)
    if config.query_growth:
        keys["attention.temperature_scale"] = config.query_growth
        keys["rope.scaling.original_context_length"] = config.query_growth_period
    rope = config.stored_rope
    if rope is not None and rope.mscale_all_dim:
        keys["rope.scaling.yarn_log_multiplier"] = rope.mscale_all_dim
        factor = keys["rope.scaling.factor"]
        more = keys.pop("rope.scaling.attn_factor", 1.0)
        more *= _rope.yarn_mscale(factor, rope.mscale_all_dim)
        if abs(more - 1) > 1e-9:
            keys["rope.scaling.attn_factor"] = more
    return keys


ARCHITECTURE = Architecture(
    name="mistral3",
    hf_names=("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names=_decoder.LLAMA_HF_NAMES,
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
