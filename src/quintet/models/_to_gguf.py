"""What models say in GGUF's keys: the other direction of the readers in `_decoder` and `_encoder`.

Widths and counts come from the tensors, so that they cannot disagree with them.

Source: docs/gguf.md of ggml-org/ggml, the "LLM" keys; conversion/base.py of llama.cpp.
"""

from __future__ import annotations

from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.models._config import Config
from quintet.models._encoder import EncoderConfig


def decoder(c: Config, source: WeightSource, *, fused_gate: bool = False) -> dict[str, Any]:
    """The keys that every decoder has, and those of experts where it has some.

    Args:
        fused_gate: gate and up are one matrix, `ffn_up`.
    """
    experts = _experts(c, source)
    return {
        **experts,
        "vocab_size": c.vocab_size,
        "context_length": c.context_length,
        "embedding_length": c.hidden_size,
        "block_count": c.num_layers,
        "feed_forward_length": _feed_forward(source, experts) // (2 if fused_gate else 1),
        "attention.head_count": c.num_heads,
        "attention.head_count_kv": c.num_kv_heads,
        "attention.key_length": c.head_dim,
        "attention.value_length": c.head_dim,
        "attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        **(c.stored_rope.keys if c.stored_rope is not None else {}),
    }


def all_mixed(c: Config, source: WeightSource) -> None:
    """Refuse a model with experts some of whose layers have none, where GGUF cannot say so.

    Raises:
        UnsupportedModelError: there are such layers.
    """
    routers = sum(name.endswith("ffn_gate_inp.weight") for name in source.tensors)
    if routers not in (0, c.num_layers):
        raise UnsupportedModelError(
            "to write as GGUF", f"{c.num_layers - routers} layers without experts among those with"
        )


def window(c: Config) -> dict[str, Any]:
    """`attention.sliding_window`, which counts the token itself; nothing without windows."""
    reaches = [reach for reach in c.windows if reach is not None]
    return {"attention.sliding_window": reaches[0] + 1} if reaches else {}


def softcaps(c: Config) -> dict[str, Any]:
    """The caps of scores and logits, of those a model has."""
    caps = {
        "attn_logit_softcapping": c.attention_softcap,
        "final_logit_softcapping": c.logit_softcap,
    }
    return {key: cap for key, cap in caps.items() if cap}


def encoder(c: EncoderConfig, source: WeightSource) -> dict[str, Any]:
    """The keys that every encoder has."""
    return {
        "vocab_size": c.vocab_size,
        "context_length": c.context_length,
        "embedding_length": c.hidden_size,
        "block_count": c.num_layers,
        "feed_forward_length": source.tensors["blk.0.ffn_down.weight"].shape[1],
        "attention.head_count": c.num_heads,
        "attention.layer_norm_epsilon": c.layer_norm_eps,
        "attention.causal": False,
    }


def _experts(c: Config, source: WeightSource) -> dict[str, Any]:
    for name, info in source.tensors.items():
        if name.endswith(".ffn_up_exps.weight"):
            return {
                "expert_count": info.shape[0],
                "expert_used_count": c.num_experts_used,
                "expert_feed_forward_length": info.shape[1],
            }
    return {}


def _feed_forward(source: WeightSource, experts: dict[str, Any]) -> int:
    """Rows of the first dense `ffn_up`, or of an expert's."""
    for name, info in source.tensors.items():
        if name.endswith(".ffn_up.weight"):
            return info.shape[0]
    return int(experts["expert_feed_forward_length"])
