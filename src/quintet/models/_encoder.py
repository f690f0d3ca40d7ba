"""What BERT-shaped encoders share: their hyperparameters, and the scorer on top of some.

Knows no architecture; a model file says what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Tensor
from quintet.models._config import MAX_CONTEXT, MAX_LAYERS, MAX_WIDTH, Keys

SCORES = "cls.output.weight"  # of a model that ranks or classifies


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder's hyperparameters.

    Args:
        context_length: tokens the model was made for.
        rope_inv_freq: [rotary_dim / 2], radians per position; () without rotary embedding.
        local_inv_freq: the same for layers that see a window only.
        local_reach: tokens such a layer sees on each side; None where there is none.
        global_layers: which layers see all tokens; one per layer.
        rope_keys: how GGUF says the frequencies, of a model that was read from a directory.
    """

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    vocab_size: int
    context_length: int
    layer_norm_eps: float
    rope_inv_freq: tuple[float, ...] = ()
    local_inv_freq: tuple[float, ...] = ()
    local_reach: int | None = None
    global_layers: tuple[bool, ...] = ()
    rope_keys: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def head_dim(self) -> int:
        """Columns of a head."""
        return self.hidden_size // self.num_heads

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the embedding is the head as well; an encoder has no such head."""
        return False


def common_from_gguf(keys: Keys, source: WeightSource) -> dict[str, Any]:
    """The fields of EncoderConfig that every encoder's GGUF metadata has.

    Source: the "LLM" keys of the GGUF specification (docs/gguf.md of the ggml project).
    """
    if keys.values.get(keys.prefix + "attention.causal", False):
        raise keys.error("attention.causal", "expected an encoder, found a causal model")
    return {
        "num_layers": keys.integer("block_count", maximum=MAX_LAYERS),
        "hidden_size": keys.integer("embedding_length", maximum=MAX_WIDTH),
        "num_heads": keys.integer("attention.head_count", maximum=MAX_WIDTH),
        "vocab_size": _vocab_size(source),
        "context_length": keys.integer("context_length", maximum=MAX_CONTEXT),
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
    }


def common_from_hf(
    keys: Keys, source: WeightSource, *, layer_norm_eps: str, activation: str, expected: str
) -> dict[str, Any]:
    """The fields of EncoderConfig that every encoder's config.json has.

    Args:
        layer_norm_eps: what its key is called.
        activation: the same of the activation function, which must be `expected`.

    Raises:
        UnsupportedModelError: another activation, or a decoder.
    """
    found = keys.values.get(activation, expected)
    if found != expected:
        raise UnsupportedModelError("activation", str(found), (expected,))
    if keys.values.get("is_decoder"):
        raise UnsupportedModelError("causal use of an encoder", keys.path or "config.json")
    return {
        "num_layers": keys.integer("num_hidden_layers", maximum=MAX_LAYERS),
        "hidden_size": keys.integer("hidden_size", maximum=MAX_WIDTH),
        "num_heads": keys.integer("num_attention_heads", maximum=MAX_WIDTH),
        "vocab_size": _vocab_size(source),
        "context_length": keys.integer("max_position_embeddings", maximum=MAX_CONTEXT),
        "layer_norm_eps": keys.number(layer_norm_eps),
    }


def both(ours: str, theirs: str) -> dict[str, str]:
    """The names of a module's weight and bias."""
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}


def linear(g: Graph, x: Tensor, prefix: str, name: str) -> Tensor:
    """A matrix product, with a bias where the model has one: [n, in] -> [n, out]."""
    scope = g.scope(prefix) if prefix else g.root
    bias = f"{scope.prefix}{name}.bias"
    return scope.linear(x, name, bias=g.has(bias))


def _vocab_size(source: WeightSource) -> int:
    embedding = source.tensors.get("token_embd.weight")
    return 1 if embedding is None else embedding.shape[0]


def refuse(values: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse options of a config.json that change what is computed; absent ones are as expected.

    Raises:
        UnsupportedModelError: names the first that differs.
    """
    for name, value in expected.items():
        found = values.get(name, value)
        if found != value:
            raise UnsupportedModelError(name, str(found), (str(value),))
