"""ModernBERT encoder: norms before each block rather than behind it, rotary embedding, GeGLU, and
layers that see all tokens among layers that see a window, with frequencies of their own.

The first layer has no norm before its attention: that of the embedding stands there.  With a
classifier the scores are those of the selected rows, which must be those of [CLS]; of directories
only.

Source: Warner et al. 2024, arXiv:2412.13663, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Rotary, Tensor
from quintet.models import _encoder, _rope, _to_gguf
from quintet.models._config import MAX_CONTEXT, MAX_LAYERS, Keys
from quintet.models._encoder import EncoderConfig, both, linear
from quintet.models._registry import Architecture


def attention(g: Graph, x: Tensor, layer: int, c: EncoderConfig) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    block = f"blk.{layer}"
    is_global = c.global_layers[layer]
    rotary = Rotary(c.rope_inv_freq if is_global else c.local_inv_freq)
    reach = None if is_global else c.local_reach
    q, k, v = g.split(linear(g, x, block, "attn_qkv"), *[c.hidden_size] * 3)
    q = g.rope(q, head_dim=c.head_dim, rotary=rotary)
    k = g.rope(k, head_dim=c.head_dim, rotary=rotary)
    heads: dict[str, Any] = {"num_heads": c.num_heads, "num_kv_heads": c.num_heads}
    y = g.attention(q, k, v, layer=layer, **heads, left=reach, right=reach)
    return linear(g, y, block, "attn_output")


def mlp(g: Graph, x: Tensor, layer: int) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    block = f"blk.{layer}"
    both_halves = linear(g, x, block, "ffn_up")
    gate, up = g.split(both_halves, *[both_halves.width // 2] * 2)
    return linear(g, g.gelu_mul(gate, up), block, "ffn_down")


def build(g: Graph, c: EncoderConfig) -> Tensor:
    """Token ids -> hidden rows [num_logits_rows, hidden_size], or their scores."""
    x = g.root.embed("token_embd")
    x = g.root.layer_norm(x, "token_embd_norm", eps=c.layer_norm_eps)
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.layer_norm(x, "attn_norm", eps=c.layer_norm_eps) if layer > 0 else x
        x = g.add(attention(g, h, layer, c), x)
        h = w.layer_norm(x, "ffn_norm", eps=c.layer_norm_eps)
        x = g.add(mlp(g, h, layer), x)
    x = g.root.layer_norm(g.select_rows(x), "output_norm", eps=c.layer_norm_eps)
    if not g.has(_encoder.SCORES):
        return x
    x = g.act(linear(g, x, "", "cls"), "gelu")
    x = g.root.layer_norm(x, "cls.norm", eps=c.layer_norm_eps)
    return linear(g, x, "", "cls.output")


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> EncoderConfig:
    if _encoder.SCORES in source.tensors:
        # Files made by llama.cpp mean the scores of the mean row, and no key says which.
        raise UnsupportedModelError("classifier in a GGUF file", "modern-bert's", ("bert's",))
    keys = Keys(metadata, "modern-bert.", path)
    common = _encoder.common_from_gguf(keys, source)
    head_dim = max(2, common["hidden_size"] // common["num_heads"])
    period = keys.integer("attention.sliding_window_pattern", maximum=MAX_LAYERS, default=3)
    global_theta = keys.number("rope.freq_base")
    return EncoderConfig(
        architecture="modern-bert",
        **common,
        rope_inv_freq=_rope.inverse_frequencies(global_theta, head_dim),
        local_inv_freq=_rope.inverse_frequencies(
            keys.number("rope.freq_base_swa", default=10000.0), head_dim
        ),
        # The key counts both sides and the token itself.
        local_reach=keys.integer("attention.sliding_window", maximum=MAX_CONTEXT) // 2,
        global_layers=_every(period, common["num_layers"]),
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> EncoderConfig:
    keys = Keys(config, path=path)
    common = _encoder.common_from_hf(
        keys, source, layer_norm_eps="norm_eps", activation="hidden_activation", expected="gelu"
    )
    if _encoder.SCORES in source.tensors:
        _encoder.refuse(config, {"classifier_pooling": "cls", "classifier_activation": "gelu"})
    head_dim = max(2, common["hidden_size"] // common["num_heads"])
    theta = _theta(keys, "full", "global", 160000.0)
    local_theta = _theta(keys, "sliding", "local", 10000.0)
    return EncoderConfig(
        architecture="modern-bert",
        **common,
        rope_inv_freq=_rope.inverse_frequencies(theta, head_dim),
        local_inv_freq=_rope.inverse_frequencies(local_theta, head_dim),
        rope_keys={"rope.freq_base": theta, "rope.freq_base_swa": local_theta},
        local_reach=keys.integer("local_attention", maximum=MAX_CONTEXT) // 2,
        global_layers=_global_layers(keys, common["num_layers"]),
    )


def _theta(keys: Keys, kind: str, old_kind: str, default: float) -> float:
    """The base of one kind of layer: transformers 5 has them by kind, before they stood apart."""
    rope = keys.values.get("rope_parameters")
    if rope is None:
        return keys.number(f"{old_kind}_rope_theta", default=default)
    of_kind = rope.get(f"{kind}_attention") if isinstance(rope, Mapping) else None
    if not isinstance(of_kind, Mapping):
        raise keys.error("rope_parameters", f"expected {kind}_attention in it, found {rope!r}")
    if of_kind.get("rope_type", "default") != "default":
        raise UnsupportedModelError("rope scaling", str(of_kind["rope_type"]), ("default",))
    return Keys(of_kind, path=keys.path).number("rope_theta", default=default)


def _global_layers(keys: Keys, num_layers: int) -> tuple[bool, ...]:
    kinds = keys.values.get("layer_types")
    if kinds is None:
        period = keys.integer("global_attn_every_n_layers", maximum=MAX_LAYERS)
        return _every(period, num_layers)
    known = {"full_attention": True, "sliding_attention": False}
    if not isinstance(kinds, list) or len(kinds) != num_layers or not set(kinds) <= known.keys():
        raise keys.error("layer_types", f"expected {num_layers} kinds of attention, found {kinds}")
    return tuple(known[kind] for kind in kinds)


def _every(period: int, num_layers: int) -> tuple[bool, ...]:
    return tuple(layer % period == 0 for layer in range(num_layers))


def to_gguf(config: EncoderConfig, source: WeightSource) -> dict[str, Any]:
    flags = config.global_layers
    period = flags.index(True, 1) if True in flags[1:] else config.num_layers
    return {
        **_to_gguf.encoder(config, source),
        **config.rope_keys,
        "attention.sliding_window": 2 * (config.local_reach or 0),
        "attention.sliding_window_pattern": period,
    }


ARCHITECTURE = Architecture(
    name="modern-bert",
    hf_names=("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        "token_embd.weight": "model.embeddings.tok_embeddings.weight",
        **both("token_embd_norm", "model.embeddings.norm"),
        **both("blk.{i}.attn_norm", "model.layers.{i}.attn_norm"),
        **both("blk.{i}.attn_qkv", "model.layers.{i}.attn.Wqkv"),
        **both("blk.{i}.attn_output", "model.layers.{i}.attn.Wo"),
        **both("blk.{i}.ffn_norm", "model.layers.{i}.mlp_norm"),
        **both("blk.{i}.ffn_up", "model.layers.{i}.mlp.Wi"),
        **both("blk.{i}.ffn_down", "model.layers.{i}.mlp.Wo"),
        **both("output_norm", "model.final_norm"),
        **both("cls", "head.dense"),
        **both("cls.norm", "head.norm"),
        **both("cls.output", "classifier"),
    },
    hf_prefix="model.",
    ignored=("cls.", "decoder."),  # the head of pre-training
)
