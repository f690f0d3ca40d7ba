"""How a GGUF file says what a config.json says of rotary embedding: keys, and tensors of factors.

Source: docs/gguf.md of ggml-org/ggml for the keys; llama-context.cpp of llama.cpp for how YaRN's
attention factor is made of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quintet.models._config import Config, Keys
from quintet.models._rope import (
    LONG_FACTORS,
    ROPE_FACTORS,
    SHORT_FACTORS,
    Scaled,
    inverse_frequencies,
    yarn_mscale,
)


@dataclass(frozen=True)
class StoredRope:
    """Rotary embedding as a GGUF file has it.

    Args:
        keys: without the architecture's name.
        factors: [rotary_dim / 2] each, by tensor name.
        mscale_all_dim: of YaRN in a config.json; 0 where it has none.
    """

    keys: Mapping[str, Any]
    factors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    mscale_all_dim: float = 0.0


def with_keys(config: Config, keys: Mapping[str, Any]) -> Config:
    """A configuration whose rotary embedding takes more keys to say."""
    stored = config.stored_rope
    if stored is None:
        return config
    stored = dataclasses.replace(stored, keys={**stored.keys, **keys})
    return dataclasses.replace(config, stored_rope=stored)


def stored_rope(
    theta: float,
    rotary_dim: int,
    rope: Mapping[str, Any],
    scaled: Scaled,
    keys_of_model: Keys,
    context_length: int,
) -> StoredRope:
    """
    What to write for frequencies that were read with `_rope.scaled_from_hf`.

    Args:
        rope, keys_of_model, context_length: what they were read from.
        scaled: what was made of it.
    """
    keys: dict[str, Any] = {"rope.dimension_count": rotary_dim, "rope.freq_base": theta}
    kind = rope.get("rope_type", rope.get("type", "default"))
    given = Keys(rope)
    if kind == "linear":
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": given.number("factor")}
    elif kind == "llama3":
        plain = np.array(inverse_frequencies(theta, rotary_dim))
        return StoredRope(keys, {ROPE_FACTORS: (plain / np.array(scaled.inv_freq)).tolist()})
    elif kind in ("longrope", "su"):
        name = "original_max_position_embeddings"
        where = keys_of_model if keys_of_model.has(name) else given
        keys["rope.scaling.original_context_length"] = int(where.number(name))
        keys["rope.scaling.attn_factor"] = scaled.attention_factor
        return StoredRope(
            keys, {LONG_FACTORS: rope["long_factor"], SHORT_FACTORS: rope["short_factor"]}
        )
    elif kind == "yarn":
        original = int(given.number("original_max_position_embeddings", default=context_length))
        factor = given.number("factor", default=max(context_length / original, 1.0))
        keys |= {
            "rope.scaling.type": kind,
            "rope.scaling.factor": factor,
            "rope.scaling.original_context_length": original,
        }
        for name in ("beta_fast", "beta_slow"):
            if given.has(name):
                keys[f"rope.scaling.yarn_{name}"] = given.number(name)
        # llama.cpp multiplies it with what YaRN's paper has.
        more = scaled.attention_factor / yarn_mscale(factor, 1.0)
        if abs(more - 1) > 1e-9:
            keys["rope.scaling.attn_factor"] = more
        return StoredRope(keys, mscale_all_dim=float(rope.get("mscale_all_dim") or 0.0))
    return StoredRope(keys)
