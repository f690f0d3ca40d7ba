"""SmolLM3 decoder: Llama in which every fourth layer does not rotate q and k.

GGUF does not say which layers; llama.cpp, src/llama-model.cpp, has every fourth.

Source: SmolLM3, Hugging Face 2025; Yang et al. 2025, arXiv:2501.18795 (layers without positions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import MAX_LAYERS, Config, Keys
from quintet.models._registry import Architecture

_PERIOD = 4


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.attend(w, *_blocks.qkv(w, h), layer, c))
        h = w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.swiglu(w, h))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "smollm3.", path)
    num_layers = keys.integer("block_count", maximum=MAX_LAYERS)
    return _decoder.from_gguf(
        metadata,
        source,
        "smollm3",
        rope_interleaved=True,
        path=path,
        rope_layers=_every(_PERIOD, num_layers),
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(config, path=path)
    num_layers = keys.integer("num_hidden_layers", maximum=MAX_LAYERS)
    flags = config.get("no_rope_layers")  # 1 where a layer rotates, whatever the name says
    if flags is None:
        period = keys.integer("no_rope_layer_interval", maximum=MAX_LAYERS, default=_PERIOD)
        rope_layers = _every(period, num_layers)
    elif isinstance(flags, list) and len(flags) >= num_layers and set(flags) <= {0, 1}:
        rope_layers = tuple(flag == 1 for flag in flags[:num_layers])
    else:
        raise keys.error("no_rope_layers", f"expected {num_layers} of 0 or 1, found {flags!r}")
    windows: tuple[int | None, ...] = ()
    if config.get("use_sliding_window"):
        windows = _decoder.windows_from_hf(keys, num_layers, [not flag for flag in rope_layers])
    return _decoder.from_hf(
        config,
        source,
        "smollm3",
        path=path,
        has_windows=True,
        default_theta=2e6,
        rope_layers=rope_layers,
        windows=windows,
    )


def _every(period: int, num_layers: int) -> tuple[bool, ...]:
    return tuple((layer + 1) % period != 0 for layer in range(num_layers))


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    return _to_gguf.decoder(config, source)


ARCHITECTURE = Architecture(
    name="smollm3",
    hf_names=("SmolLM3ForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names=_decoder.LLAMA_HF_NAMES,
)
