"""What a decoder's weights do not say: read from GGUF metadata or a Hugging Face config.json.

Both are translated here, once, into the field's one set of names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quintet.errors import ModelFormatError

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20  # bounds every width a header can claim; the tensors must then agree
MAX_CONTEXT = 1 << 27


@dataclass(frozen=True)
class Config:
    """A decoder's hyperparameters.

    Args:
        rope_inv_freq: [rotary_dim / 2], radians per position, scaling already applied.
        rope_interleaved: see `quintet.graph.Rotary`.
        context_length: tokens the model was made for.
        qkv_bias: whether q, k and v carry biases.
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

    def error(self, name: str, message: str) -> ModelFormatError:
        return ModelFormatError(message, path=self.path, part=self.prefix + name)

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(self.prefix + name)
        if value is None:
            if default is None:
                raise self.error(name, "the key is missing")
            return default
        return value
