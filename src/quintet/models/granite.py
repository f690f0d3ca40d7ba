"""Granite 3 decoder: Llama with four multipliers, of embeddings, of what a block adds to the
residual, of attention scores and of logits.

Source: Granite 3.0 language models, IBM 2024, section 2; GraniteConfig of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import Config, Keys
from quintet.models._registry import Architecture


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.scale(g.root.embed("token_embd"), c.embedding_scale)
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        h = _blocks.attend(w, *_blocks.qkv(w, h), layer, c)
        x = g.add(x, g.scale(h, c.residual_scale))
        h = _blocks.swiglu(w, w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps))
        x = g.add(x, g.scale(h, c.residual_scale))
    return _blocks.head(g, x, c)


def _multipliers(
    keys: Keys, attention: str, embedding: str, residual: str, logits: str
) -> dict[str, Any]:
    """The fields of Config that hold them, by what their keys are called; logits are divided."""
    return {
        "attention_scale": keys.number(attention),
        "embedding_scale": keys.number(embedding),
        "residual_scale": keys.number(residual),
        "logit_scale": 1 / keys.number(logits),
    }


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "granite.", path)
    names = ("attention.scale", "embedding_scale", "residual_scale", "logit_scale")
    return _decoder.from_gguf(
        metadata,
        source,
        "granite",
        rope_interleaved=True,
        path=path,
        **_multipliers(keys, *names),
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(
        {
            "attention_multiplier": 1.0,
            "embedding_multiplier": 1.0,
            "residual_multiplier": 1.0,
            "logits_scaling": 1.0,
            **config,
        },
        path=path,
    )
    names = (
        "attention_multiplier",
        "embedding_multiplier",
        "residual_multiplier",
        "logits_scaling",
    )
    return _decoder.from_hf(config, source, "granite", path=path, **_multipliers(keys, *names))


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    return {
        **_to_gguf.decoder(config, source),
        "attention.scale": config.attention_scale,
        "embedding_scale": config.embedding_scale,
        "residual_scale": config.residual_scale,
        "logit_scale": 1 / config.logit_scale,
    }


ARCHITECTURE = Architecture(
    name="granite",
    hf_names=("GraniteForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names=_decoder.LLAMA_HF_NAMES,
)
