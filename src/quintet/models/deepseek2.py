"""DeepSeek-V2 and V3 decoders: keys and values are made of one latent per token (MLA), a part of
each key is rotated and shared by all heads, and the feed-forward is a mixture of experts beside
some that all tokens pass through.

Attention runs on the keys and values that the latent stands for: the KV cache holds 2 * num_heads *
head_dim values per token and layer rather than the latent, and values are padded to head_dim.
Experts may be chosen from the best groups only, a group's score being its best expert in V2 and the
sum of its best two in V3.

Source: DeepSeek-V2, arXiv:2405.04434, section 2; DeepSeek-V3, arXiv:2412.19437, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Rotary, Scope, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import MAX_EXPERTS, MAX_WIDTH, Config, Keys
from quintet.models._derived import stacked_experts
from quintet.models._latent import as_matrices, split
from quintet.models._registry import Architecture

_SOFTMAX, _SIGMOID = 1, 2  # of `expert_gating_func`


def attention(w: Scope, x: Tensor, layer: int, c: Config) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size].  A head's rotated columns come first."""
    g = w.graph
    rotated = 2 * len(c.rope_inv_freq)
    plain, heads = c.head_dim - rotated, range(c.num_heads)
    rotary = Rotary(c.rope_inv_freq, c.rope_interleaved, c.rope_attention_factor)
    if g.has(f"{w.prefix}attn_q.weight"):
        q = w.linear(x, "attn_q")
    else:
        latent = w.rms_norm(_blocks.linear(w, x, "attn_q_a"), "attn_q_a_norm", eps=c.rms_norm_eps)
        q = w.linear(latent, "attn_q_b")
    runs = [
        ((0, head * c.head_dim + plain, rotated), (0, head * c.head_dim, plain)) for head in heads
    ]
    q = g.rope(g.arrange([q], sum(runs, ())), head_dim=c.head_dim, rotary=rotary)
    latent, shared = g.split(_blocks.linear(w, x, "attn_kv_a_mqa"), c.kv_lora_rank, rotated)
    latent = w.rms_norm(latent, "attn_kv_a_norm", eps=c.rms_norm_eps)
    shared = g.rope(shared, head_dim=rotated, rotary=rotary)
    if g.has(f"{w.prefix}attn_kv_b.weight"):
        keys = values = w.linear(latent, "attn_kv_b")
        stride, first_value = plain + c.value_head_dim, plain
        key_stride = stride
    else:
        keys, values = w.linear(latent, "attn_k_b"), w.linear(latent, "attn_v_b")
        key_stride, stride, first_value = plain, c.value_head_dim, 0
    runs = [((0, 0, rotated), (1, head * key_stride, plain)) for head in heads]
    k = g.arrange([shared, keys], sum(runs, ()))
    padding = c.head_dim - c.value_head_dim
    v_runs = [(0, head * stride + first_value, c.value_head_dim) for head in heads]
    v = g.arrange([values], [r for run in v_runs for r in (run, (-1, 0, padding)) if r[2]])
    y = g.attention(
        q,
        k,
        v,
        layer=layer,
        num_heads=c.num_heads,
        num_kv_heads=c.num_heads,
        scale=c.attention_scale,
    )
    y = g.arrange([y], [(0, head * c.head_dim, c.value_head_dim) for head in heads])
    return _blocks.linear(w, y, "attn_output")


def shared_experts(w: Scope, x: Tensor) -> Tensor:
    """x: [n, hidden_size] -> [n, hidden_size]."""
    gate, up = w.linear(x, "ffn_gate_shexp"), w.linear(x, "ffn_up_shexp")
    return w.linear(w.graph.silu_mul(gate, up), "ffn_down_shexp")


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        x = g.add(x, attention(w, h, layer, c))
        h = w.rms_norm(x, "ffn_norm", eps=c.rms_norm_eps)
        if not _blocks.has_experts(w):
            x = g.add(x, _blocks.swiglu(w, h))
            continue
        mixed = _blocks.moe(w, h, c)
        if g.has(f"{w.prefix}ffn_gate_shexp.weight"):
            mixed = g.add(mixed, shared_experts(w, h))
        x = g.add(x, mixed)
    return _blocks.head(g, x, c)


def _fields(
    keys: Keys, rank: str, head_dim: int, value_dim: int, rotary_dim: int
) -> dict[str, Any]:
    if not rotary_dim < head_dim or not value_dim <= head_dim:
        raise UnsupportedModelError(
            "attention with heads of these sizes", f"{rotary_dim} of {head_dim}, values {value_dim}"
        )
    return {
        "kv_lora_rank": keys.integer(rank, maximum=MAX_WIDTH),
        "value_head_dim": value_dim,
        "rope_interleaved": True,
    }


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "deepseek2.", path)
    mla = "_mla" if keys.has("attention.key_length_mla") else ""
    head_dim = keys.integer(f"attention.key_length{mla}", maximum=MAX_WIDTH)
    value_dim = keys.integer(f"attention.value_length{mla}", maximum=MAX_WIDTH)
    rotary_dim = keys.integer("rope.dimension_count", maximum=MAX_WIDTH)
    groups = keys.integer("expert_group_count", maximum=MAX_EXPERTS, default=1)
    used = keys.integer("expert_group_used_count", maximum=MAX_EXPERTS, default=groups)
    gating = keys.integer("expert_gating_func", maximum=MAX_EXPERTS, default=_SOFTMAX)
    if gating not in (_SOFTMAX, _SIGMOID):
        raise UnsupportedModelError("expert_gating_func", str(gating), ("1", "2"))
    scale = head_dim**-0.5
    log_multiplier = keys.values.get("deepseek2.rope.scaling.yarn_log_multiplier")
    if keys.values.get("deepseek2.rope.scaling.type") == "yarn" and log_multiplier:
        # It is a tenth of mscale_all_dim, the factor of the logarithm in llama.cpp.
        log_multiplier = keys.number("rope.scaling.yarn_log_multiplier")
        scale *= (1 + log_multiplier * math.log(keys.number("rope.scaling.factor"))) ** 2
    num_heads = keys.integer("attention.head_count", maximum=MAX_WIDTH)
    expanded = {
        **metadata,
        "deepseek2.attention.key_length": head_dim,
        "deepseek2.attention.value_length": head_dim,
        "deepseek2.attention.head_count_kv": num_heads,
    }
    fields = _fields(keys, "attention.kv_lora_rank", head_dim, value_dim, rotary_dim)
    return _decoder.from_gguf(
        expanded,
        source,
        "deepseek2",
        path=path,
        **fields,
        rope_attention_factor=1.0,  # mscale is mscale_all_dim in all there are
        attention_scale=scale,
        num_experts_used=_decoder.experts_used(keys, "expert_used_count"),
        expert_weights_normalized=keys.flag("expert_weights_norm", default=False),
        expert_weights_factor=keys.number("expert_weights_scale", default=1.0),
        expert_scoring="sigmoid" if gating == _SIGMOID else "softmax",
        num_expert_groups=groups,
        num_expert_groups_used=used,
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(config, path=path)
    rotary_dim = keys.integer("qk_rope_head_dim", maximum=MAX_WIDTH)
    head_dim = keys.integer("qk_nope_head_dim", maximum=MAX_WIDTH) + rotary_dim
    value_dim = keys.integer("v_head_dim", maximum=MAX_WIDTH)
    is_v3 = config.get("model_type") == "deepseek_v3"
    groups = keys.integer("n_group", maximum=MAX_EXPERTS, default=1)
    used = keys.integer("topk_group", maximum=MAX_EXPERTS, default=groups)
    method = config.get("topk_method") or "greedy"
    if method not in ("greedy", "group_limited_greedy", "noaux_tc"):
        raise UnsupportedModelError("topk_method", str(method))
    if groups == used or (method == "greedy" and not is_v3):
        groups = used = 1
    normalized = keys.flag("norm_topk_prob", default=is_v3)
    if normalized and not is_v3:
        raise UnsupportedModelError("norm_topk_prob", "in a DeepSeek-V2 model")
    if is_v3 and not keys.flag("rope_interleave", default=True):
        raise UnsupportedModelError("rope_interleave", "false", ("true",))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scale = head_dim**-0.5
    if isinstance(rope, Mapping) and rope.get("mscale_all_dim"):
        scaling = Keys(rope, path=path)
        grown = 0.1 * scaling.number("mscale_all_dim") * math.log(scaling.number("factor"))
        scale *= (1 + max(grown, 0.0)) ** 2
    num_heads = keys.integer("num_attention_heads", maximum=MAX_WIDTH)
    return _decoder.from_hf(
        {**config, "head_dim": head_dim, "num_key_value_heads": num_heads},
        source,
        "deepseek2",
        path=path,
        rotary_dim=rotary_dim,
        **_fields(keys, "kv_lora_rank", head_dim, value_dim, rotary_dim),
        attention_scale=scale,
        num_experts_used=_decoder.experts_used(keys, "num_experts_per_tok"),
        expert_weights_normalized=normalized,
        expert_weights_factor=keys.number("routed_scaling_factor", default=1.0),
        expert_scoring="sigmoid" if is_v3 else "softmax",
        num_expert_groups=groups,
        num_expert_groups_used=used,
    )


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    tensors, rope = source.tensors, config.stored_rope
    keys = _to_gguf.decoder(config, source)
    rank, rotary_dim = config.kv_lora_rank, 2 * len(config.rope_inv_freq)
    # The sizes of attention on the latent, and (mla) of what it stands for.
    keys |= {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rotary_dim,
        "attention.value_length": rank,
        "attention.key_length_mla": config.head_dim,
        "attention.value_length_mla": config.value_head_dim,
    }
    if "blk.0.attn_q_a.weight" in tensors:
        keys["attention.q_lora_rank"] = tensors["blk.0.attn_q_a.weight"].shape[0]
    routed = [f"blk.{i}.ffn_gate_inp.weight" in tensors for i in range(config.num_layers)]
    dense = routed.index(True) if True in routed else config.num_layers
    if not all(routed[dense:]):
        raise UnsupportedModelError("to write as GGUF", "dense layers behind those with experts")
    keys["leading_dense_block_count"] = dense
    if dense < config.num_layers:
        shared = tensors.get(f"blk.{dense}.ffn_up_shexp.weight")
        width = keys["expert_feed_forward_length"]
        is_sigmoid = config.expert_scoring == "sigmoid"
        keys |= {
            "expert_shared_count": 0 if shared is None else shared.shape[0] // width,
            "expert_weights_scale": config.expert_weights_factor,
            "expert_weights_norm": config.expert_weights_normalized,
            "expert_gating_func": _SIGMOID if is_sigmoid else _SOFTMAX,
        }
    if config.num_expert_groups > 1:
        keys["expert_group_count"] = config.num_expert_groups
        keys["expert_group_used_count"] = config.num_expert_groups_used
    if rope is not None and rope.mscale_all_dim:
        keys["rope.scaling.yarn_log_multiplier"] = 0.1 * rope.mscale_all_dim
        keys.pop("rope.scaling.attn_factor", None)  # follows from it
    return keys


_ATTENTION = "model.layers.{i}.self_attn"
_MLP = "model.layers.{i}.mlp"

ARCHITECTURE = Architecture(
    name="deepseek2",
    hf_names=("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    as_gguf_weights=split,
    build=build,
    weight_names={
        **_decoder.hf_names_without("attn_k", "attn_v"),
        "blk.{i}.attn_q_a.weight": f"{_ATTENTION}.q_a_proj.weight",
        "blk.{i}.attn_q_a.bias": f"{_ATTENTION}.q_a_proj.bias",
        "blk.{i}.attn_q_a_norm.weight": f"{_ATTENTION}.q_a_layernorm.weight",
        "blk.{i}.attn_q_b.weight": f"{_ATTENTION}.q_b_proj.weight",
        "blk.{i}.attn_kv_a_mqa.weight": f"{_ATTENTION}.kv_a_proj_with_mqa.weight",
        "blk.{i}.attn_kv_a_mqa.bias": f"{_ATTENTION}.kv_a_proj_with_mqa.bias",
        "blk.{i}.attn_kv_a_norm.weight": f"{_ATTENTION}.kv_a_layernorm.weight",
        "blk.{i}.attn_kv_b.weight": f"{_ATTENTION}.kv_b_proj.weight",
        "blk.{i}.ffn_gate_inp.weight": f"{_MLP}.gate.weight",
        "blk.{i}.exp_probs_b.bias": f"{_MLP}.gate.e_score_correction_bias",
        **{
            f"blk.{{i}}.ffn_{part}_shexp.weight": f"{_MLP}.shared_experts.{part}_proj.weight"
            for part in ("gate", "up", "down")
        },
        **{
            f"blk.{{i}}.ffn_{part}_exps.{{e}}.weight": f"{_MLP}.experts.{{e}}.{part}_proj.weight"
            for part in ("gate", "up", "down")
        },
    },
    gguf_weights=as_matrices,
    hf_weights=stacked_experts,
)
