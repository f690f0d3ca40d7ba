"""OLMo 2 decoder.  Differs from Llama in two places: norms stand behind attention and feed-forward
instead of before them, and q and k are normalised, each over its whole row.  In OLMo 3, which GGUF
stores under the same name, three layers in four see a window, and rope scaling is not for those.

Source: OLMo 2, arXiv:2501.00656, section 2.1; Olmo3Config and its model in transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _rope, _to_gguf
from quintet.models._config import MAX_LAYERS, Config, Keys
from quintet.models._registry import Architecture

_PERIOD = 4
_THETA = 500000.0


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        q, k, v = _blocks.qkv(w, x)
        q = w.rms_norm(q, "attn_q_norm", eps=c.rms_norm_eps)
        k = w.rms_norm(k, "attn_k_norm", eps=c.rms_norm_eps)
        h = _blocks.attend(w, q, k, v, layer, c)
        x = g.add(x, w.rms_norm(h, "post_attention_norm", eps=c.rms_norm_eps))
        h = _blocks.swiglu(w, x)
        x = g.add(x, w.rms_norm(h, "post_ffw_norm", eps=c.rms_norm_eps))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "olmo2.", path)
    num_layers = keys.integer("block_count", maximum=MAX_LAYERS)
    config = _decoder.from_gguf(metadata, source, "olmo2", rope_interleaved=False, path=path)
    windows = _decoder.windows_from_gguf(keys, num_layers, _PERIOD)
    theta = keys.number("rope.freq_base", default=10000.0)
    return _with_windows(config, windows, theta)


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    if config.get("model_type") != "olmo3":
        return _decoder.from_hf(config, source, "olmo2", path=path, default_theta=_THETA)
    rope, theta = _decoder.rope_by_kind(
        config, path, theta=_THETA, local_theta=config.get("rope_theta", _THETA)
    )
    values = {**config, "rope_parameters": rope}
    found = _decoder.from_hf(
        values, source, "olmo2", path=path, default_theta=_THETA, has_windows=True
    )
    default = [(layer + 1) % _PERIOD != 0 for layer in range(found.num_layers)]
    windows = _decoder.windows_from_hf(Keys(config, path=path), found.num_layers, default)
    return _with_windows(found, windows, theta)


def _with_windows(config: Config, windows: tuple[int | None, ...], theta: float) -> Config:
    """Rope scaling is for the layers that see all tokens."""
    plain = _rope.inverse_frequencies(theta, 2 * len(config.rope_inv_freq))
    return dataclasses.replace(config, windows=windows, local_inv_freq=plain if windows else ())


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    return {**_to_gguf.decoder(config, source), **_to_gguf.window(config)}


ARCHITECTURE = Architecture(
    name="olmo2",
    hf_names=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **_decoder.hf_names_without("attn_norm", "ffn_norm"),
        "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
        "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
        "blk.{i}.post_attention_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
        "blk.{i}.post_ffw_norm.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
    },
)
