"""What a decoder's weights do not say: read from GGUF metadata or a Hugging Face config.json.

Both are translated here, once, into the field's one set of names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from quintet.errors import ModelFormatError

if TYPE_CHECKING:
    from quintet.models._stored_rope import StoredRope

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20  # bounds every width a header can claim; the tensors must then agree
MAX_CONTEXT = 1 << 27
MAX_EXPERTS = 4096


@dataclass(frozen=True)
class Config:
    """A decoder's hyperparameters.

    Args:
        rope_inv_freq: [rotary_dim / 2], radians per position, scaling already applied.
        rope_interleaved: see `quintet.graph.Rotary`.
        context_length: tokens the model was made for.
        qkv_bias: whether q, k and v carry biases.
        short_inv_freq, short_context_length: the frequencies of a model that is run with no more
            than so many tokens, where it has others for those.
        windows: per layer, how many tokens before itself a token sees, None for all; () where all
            layers see all.
        local_inv_freq: frequencies of the layers with a window, where they have their own.
        attention_scale: of scores; 1 / sqrt(head_dim) when None.
        attention_softcap, logit_softcap: 0 for none; see `quintet.graph`.
        embedding_scale, residual_scale, logit_scale: multiply embeddings, what a block adds to
            the residual, and logits.
        rope_layers: per layer, whether it rotates q and k; () where all do.
        query_growth, query_growth_period: see `quintet.graph.ScaleByPosition`; 0 for none.
        num_experts_used: of those a token is sent to; 0 without experts.
        expert_weights_normalized, expert_weights_factor, expert_scoring, num_expert_groups,
            num_expert_groups_used: see `quintet.graph.Routing`.
        kv_lora_rank: width of the latent that keys and values are made of; 0 without.
        value_head_dim: columns of a head's values, where they are fewer than head_dim; else 0.
        stored_rope: how GGUF says the frequencies, of a model that was read from a directory.
    """

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    rms_norm_eps: float
    rope_inv_freq: tuple[float, ...]
    rope_interleaved: bool
    rope_attention_factor: float
    tie_word_embeddings: bool
    qkv_bias: bool
    short_inv_freq: tuple[float, ...] = ()
    short_context_length: int = 0
    windows: tuple[int | None, ...] = ()
    local_inv_freq: tuple[float, ...] = ()
    attention_scale: float | None = None
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    rope_layers: tuple[bool, ...] = ()
    query_growth: float = 0.0
    query_growth_period: int = 1
    num_experts_used: int = 0
    expert_weights_normalized: bool = True
    expert_weights_factor: float = 1.0
    expert_scoring: Literal["softmax", "sigmoid"] = "softmax"
    num_expert_groups: int = 1
    num_expert_groups_used: int = 1
    kv_lora_rank: int = 0
    value_head_dim: int = 0
    stored_rope: StoredRope | None = field(default=None, compare=False, repr=False)

    def for_context(self, num_tokens: int | None) -> Config:
        """The same, for a model that will see no more than num_tokens of a sequence."""
        if num_tokens is None or num_tokens > self.short_context_length:
            return self
        return dataclasses.replace(
            self, rope_inv_freq=self.short_inv_freq, context_length=self.short_context_length
        )


class Keys:
    """Typed, bounded reading of a mapping that came from a file.

    Args:
        values: GGUF metadata or config.json.
        prefix: before every name, e.g. "qwen3.".
        path: the file, for messages.
    """

    def __init__(
        self, values: Mapping[str, Any], prefix: str = "", path: str | None = None
    ) -> None:
        self.values = values
        self.prefix = prefix
        self.path = path

    def has(self, name: str) -> bool:
        return self.values.get(self.prefix + name) is not None

    def integer(self, name: str, *, maximum: int, default: int | None = None) -> int:
        """An integer in 1 .. maximum.

        Raises:
            ModelFormatError: it is missing without a default, not an integer, or out of range.
        """
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, f"expected an integer, found {value!r}")
        if not 1 <= value <= maximum:
            raise self.error(name, f"expected 1 to {maximum}, found {value}")
        return value

    def number(self, name: str, *, default: float | None = None) -> float:
        """A finite, positive number."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, f"expected a number, found {value!r}")
        if not math.isfinite(value) or value <= 0:
            raise self.error(name, f"expected a positive number, found {value!r}")
        return float(value)

    def numbers(self, name: str, *, size: int) -> tuple[float, ...]:
        """A list of so many finite, positive numbers."""
        value = self._get(name, None)
        if (
            not isinstance(value, list | tuple)
            or len(value) != size
            or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value)
            or not all(math.isfinite(v) and v > 0 for v in value)
        ):
            raise self.error(name, f"expected {size} positive numbers")
        return tuple(float(v) for v in value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"expected true or false, found {value!r}")
        return value

    def error(self, name: str, message: str) -> ModelFormatError:
        return ModelFormatError(message, path=self.path, part=self.prefix + name)

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(self.prefix + name)
        if value is None:
            if default is None:
                raise self.error(name, "the key is missing")
            return default
        return value
