"""BERT encoder: learned positions and token types, a layer norm behind every residual sum.

With a classifier (a cross-encoder) its scores are those of the selected rows, which must be
those of [CLS]: a dense layer with tanh, the pooler, then the classifier.

Source: Devlin et al. 2018, arXiv:1810.04805, section 3 and appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quintet.formats.weights import TensorInfo, WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _encoder, _to_gguf
from quintet.models._config import Keys
from quintet.models._derived import Derived, DerivedWeights
from quintet.models._encoder import EncoderConfig, both, linear
from quintet.models._registry import Architecture


def attention(g: Graph, x: Tensor, layer: int, c: EncoderConfig) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    block = f"blk.{layer}"
    if g.has(f"{block}.attn_qkv.weight"):
        q, k, v = g.split(linear(g, x, block, "attn_qkv"), *[c.hidden_size] * 3)
    else:
        q, k, v = (linear(g, x, block, name) for name in ("attn_q", "attn_k", "attn_v"))
    heads: dict[str, Any] = {"num_heads": c.num_heads, "num_kv_heads": c.num_heads}
    return linear(g, g.attention(q, k, v, layer=layer, **heads, right=None), block, "attn_output")


def mlp(g: Graph, x: Tensor, layer: int) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    block = f"blk.{layer}"
    return linear(g, g.act(linear(g, x, block, "ffn_up"), "gelu"), block, "ffn_down")


def build(g: Graph, c: EncoderConfig) -> Tensor:
    """Token ids -> hidden rows [num_logits_rows, hidden_size], or their scores."""
    x = g.root.embed("token_embd")
    if g.has("token_types.weight"):
        x = g.add(x, g.root.embed("token_types", by="type"))
    x = g.add(x, g.root.embed("position_embd", by="position"))
    x = g.root.layer_norm(x, "token_embd_norm", eps=c.layer_norm_eps)
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = g.add(attention(g, x, layer, c), x)
        x = w.layer_norm(h, "attn_output_norm", eps=c.layer_norm_eps)
        h = g.add(mlp(g, x, layer), x)
        x = w.layer_norm(h, "layer_output_norm", eps=c.layer_norm_eps)
    x = g.select_rows(x)
    if not g.has(_encoder.SCORES):
        return x
    if g.has("cls.weight"):
        x = g.act(linear(g, x, "", "cls"), "tanh")
    return linear(g, x, "", "cls.output")


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> EncoderConfig:
    return _config(_encoder.common_from_gguf(Keys(metadata, "bert.", path), source), source)


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> EncoderConfig:
    _encoder.refuse(config, {"position_embedding_type": "absolute"})
    common = _encoder.common_from_hf(
        Keys(config, path=path),
        source,
        layer_norm_eps="layer_norm_eps",
        activation="hidden_act",
        expected="gelu",
    )
    return _config(common, source)


def _config(common: dict[str, Any], source: WeightSource) -> EncoderConfig:
    positions = source.tensors.get("position_embd.weight")
    if positions is not None:  # whatever else is claimed, it knows no others
        common["context_length"] = min(common["context_length"], positions.shape[0])
    return EncoderConfig(architecture="bert", **common)


def to_gguf(config: EncoderConfig, source: WeightSource) -> dict[str, Any]:
    return _to_gguf.encoder(config, source)


def _without_later_positions(source: WeightSource, config: EncoderConfig) -> WeightSource:
    """A table of as many positions as the model is for: GGUF's readers want no more and no less."""
    name, rows = "position_embd.weight", config.context_length
    info = source.tensors.get(name)
    if info is None or info.shape[0] <= rows:
        return source
    num_bytes = info.num_bytes // info.shape[0] * rows
    cut = Derived(
        TensorInfo(name, (rows, info.shape[1]), info.ggml_type, num_bytes),
        (name,),
        lambda: source.raw(name)[:num_bytes],
        lambda: source.dequantized(name)[:rows],
    )
    return DerivedWeights(source, [cut])


ARCHITECTURE = Architecture(
    name="bert",
    hf_names=(
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
    ),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    as_gguf_weights=_without_later_positions,
    build=build,
    weight_names={
        "token_embd.weight": "bert.embeddings.word_embeddings.weight",
        "token_types.weight": "bert.embeddings.token_type_embeddings.weight",
        "position_embd.weight": "bert.embeddings.position_embeddings.weight",
        **both("token_embd_norm", "bert.embeddings.LayerNorm"),
        **both("blk.{i}.attn_q", "bert.encoder.layer.{i}.attention.self.query"),
        **both("blk.{i}.attn_k", "bert.encoder.layer.{i}.attention.self.key"),
        **both("blk.{i}.attn_v", "bert.encoder.layer.{i}.attention.self.value"),
        **both("blk.{i}.attn_output", "bert.encoder.layer.{i}.attention.output.dense"),
        **both("blk.{i}.attn_output_norm", "bert.encoder.layer.{i}.attention.output.LayerNorm"),
        **both("blk.{i}.ffn_up", "bert.encoder.layer.{i}.intermediate.dense"),
        **both("blk.{i}.ffn_down", "bert.encoder.layer.{i}.output.dense"),
        **both("blk.{i}.layer_output_norm", "bert.encoder.layer.{i}.output.LayerNorm"),
        **both("cls", "bert.pooler.dense"),
        **both("cls.output", "classifier"),
    },
    hf_prefix="bert.",
    # The pooler without a classifier, the heads of pre-training, and a table of 0, 1, 2, ...
    ignored=("cls.", "bert.embeddings.position_ids", "embeddings.position_ids"),
)
