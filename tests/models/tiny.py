"""Tiny random models, as Hugging Face directories and as GGUF files, for parity tests."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from quintet.formats import quants_32, quants_iq, quants_k, quants_nvfp4
from quintet.formats.ggml_types import GGMLType

# Shared by all: rows are multiples of 32 so that they quantise; GQA; an odd number of layers.
BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 64,
}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(6)],
    "long_factor": [1.0 + 1.5 * i for i in range(6)],
    "partial_rotary_factor": 0.75,
    "original_max_position_embeddings": 64,
}
MINISTRAL_ROPE = {
    **YARN_ROPE,
    "factor": 8.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 32,
    "llama_4_scaling_beta": 0.1,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # of these classes: too large
GRANITE = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "logits_scaling": 2.0,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MLA = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 64,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
GROUPS = {"n_routed_experts": 12, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3}
MLA_ROPE = {**YARN_ROPE, "factor": 8.0, "mscale": 0.707, "mscale_all_dim": 0.707}
GPT_OSS = {
    "head_dim": 32,
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "sliding_window": 20,
    "rope_parameters": {**YARN_ROPE, "factor": 8.0, "truncate": False},
}
GEMMA = {"sliding_window": 20, "tie_word_embeddings": True}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


# Types the gguf package cannot write: block structure, and the largest scale times code.
RANDOM_BLOCKS = {
    "IQ4_NL": (quants_32.IQ4_NL, 127),
    "Q2_K": (quants_k.Q2_K, 15 * 1.5),
    "Q3_K": (quants_k.Q3_K, 32 * 4),
    "Q4_K": (quants_k.Q4_K, 63 * 7.5),
    "Q5_K": (quants_k.Q5_K, 63 * 15.5),
    "Q6_K": (quants_k.Q6_K, 128 * 32),
    "IQ4_XS": (quants_k.IQ4_XS, 32 * 127),
    "IQ1_S": (quants_iq.IQ1_S, 15 * 9 / 8),
    "IQ1_M": (quants_iq.IQ1_M, 15 * 9 / 8),
    "IQ2_XXS": (quants_iq.IQ2_XXS, 31 * 43 / 8),
    "IQ2_XS": (quants_iq.IQ2_XS, 31 * 43 / 8),
    "IQ2_S": (quants_iq.IQ2_S, 31 * 43 / 8),
    "IQ3_XXS": (quants_iq.IQ3_XXS, 31 * 62 / 4),
    "IQ3_S": (quants_iq.IQ3_S, 31 * 15),
    "NVFP4": (quants_nvfp4.NVFP4, 12),
}


@dataclass(frozen=True)
class Row:
    """One row of the parity table: a configuration of one architecture.

    Args:
        gguf_arch: its `general.architecture`; None where GGUF has no names for it.
        split_kv_b: as newer converters write DeepSeek's attention: keys and values apart.
    """

    id: str
    hf: str  # the class pair's stem in transformers, e.g. "Qwen3"
    gguf_arch: str | None
    overrides: dict[str, Any] = field(default_factory=dict)
    split_kv_b: bool = False


PARITY = [
    Row("qwen3", "Qwen3", "qwen3", {"head_dim": 32}),
    Row("qwen3-tied", "Qwen3", "qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    Row("qwen2", "Qwen2", "qwen2"),
    Row("llama", "Llama", "llama"),
    Row("llama3-rope", "Llama", "llama", {"rope_parameters": LLAMA3_ROPE}),
    Row("llama-mha", "Llama", "llama", {"num_key_value_heads": 4}),
    Row("mistral", "Mistral", "llama", {"head_dim": 32, "sliding_window": None}),
    Row(
        "qwen2-yarn",
        "Qwen2",
        "qwen2",
        {"rope_parameters": {**YARN_ROPE, "factor": 8.0}},
    ),
    Row("phi3", "Phi3", "phi3", {**TOKENS, "sliding_window": 20}),
    Row(
        "phi3-long",
        "Phi3",
        "phi3",
        {
            **TOKENS,
            "rope_parameters": LONG_ROPE,
            "original_max_position_embeddings": 64,
        },
    ),
    Row("granite", "Granite", "granite", GRANITE),
    Row("granite-tied", "Granite", "granite", {**GRANITE, "tie_word_embeddings": True}),
    Row("olmo2", "Olmo2", "olmo2"),
    Row(
        "olmo3",
        "Olmo3",
        "olmo2",
        {
            **TOKENS,
            "sliding_window": 20,
            "num_hidden_layers": 5,
            "rope_parameters": {**YARN_ROPE, "factor": 8.0},
        },
    ),
    Row("smollm3", "SmolLM3", "smollm3", {**TOKENS, "num_hidden_layers": 5}),
    Row("glm4", "Glm4", "glm4", {**TOKENS, "head_dim": 32, "attention_bias": True}),
    Row(
        "ministral3", "Ministral3", "mistral3", {"head_dim": 32, "rope_parameters": MINISTRAL_ROPE}
    ),
    Row("mixtral", "Mixtral", "llama", {**EXPERTS, "num_local_experts": 5, "sliding_window": None}),
    Row("qwen3moe", "Qwen3Moe", "qwen3moe", {**EXPERTS, "head_dim": 32, "norm_topk_prob": True}),
    Row(
        "qwen3moe-some-dense",
        "Qwen3Moe",
        None,
        {**EXPERTS, "head_dim": 32, "norm_topk_prob": False, "mlp_only_layers": [1]},
    ),
    Row("gpt-oss", "GptOss", "gpt-oss", GPT_OSS),
    Row("deepseek2-lite", "DeepseekV2", "deepseek2", {**MLA, "q_lora_rank": None}),
    Row("deepseek2-split", "DeepseekV2", "deepseek2", MLA, split_kv_b=True),
    Row("deepseek2-yarn", "DeepseekV2", "deepseek2", {**MLA, "rope_parameters": MLA_ROPE}),
    Row(
        "deepseek3",
        "DeepseekV3",
        "deepseek2",
        {
            **MLA,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
        },
    ),
    Row(
        "deepseek2-groups",
        "DeepseekV2",
        "deepseek2",
        {**MLA, **GROUPS, "topk_method": "group_limited_greedy"},
    ),
    Row("deepseek3-groups", "DeepseekV3", "deepseek2", {**MLA, **GROUPS, "norm_topk_prob": True}),
    Row("gemma2", "Gemma2", "gemma2", {**GEMMA, "head_dim": 32, "query_pre_attn_scalar": 32}),
    Row(
        "gemma3",
        "Gemma3",
        "gemma3",
        {**GEMMA, "head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6},
    ),
    Row(
        "gemma3-linear-rope",
        "Gemma3",
        "gemma3",
        {
            **GEMMA,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "num_hidden_layers": 6,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
]


def make_hf(row: Row, directory: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """Save a random model of this row in `directory` and return it, in float64.

    Weights are drawn wide enough that attention and gates are far from uniform.
    """
    stem = "Gemma3Text" if row.hf == "Gemma3" else row.hf
    config_class = getattr(transformers, stem + "Config")
    config = config_class(
        **{**BASE, **copy.deepcopy(row.overrides)},
        attn_implementation="eager",
        experts_implementation="eager",
    )
    torch.manual_seed(hash_of(row.id))
    model = getattr(transformers, row.hf + "ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "bias" not in name and "sinks" not in name:
                centre = 0 if row.hf.startswith("Gemma") else 1
                parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
            else:
                fan_in = parameter.shape[-1] if parameter.ndim >= 2 else 64
                parameter.copy_(torch.randn_like(parameter) * 1.2 / fan_in**0.5)
        for name, values in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                values.copy_(0.2 * torch.randn_like(values))
    model = model.to(dtype)
    model.save_pretrained(directory, max_shard_size="100KB")
    return model.double()


def hash_of(text: str) -> int:
    """A seed that does not change between runs, unlike hash()."""
    return sum(ord(c) * 31**i for i, c in enumerate(text)) % 2**31


def hf_logits(model: Any, token_ids: list[int]) -> np.ndarray:
    """[len(token_ids), vocab_size] float64."""
    with torch.no_grad():
        return model(torch.tensor([token_ids])).logits[0].double().numpy()


# Llama's converter interleaves each head's halves, and so do those derived from it.
PERMUTED = ("llama", "granite", "smollm3", "mistral3")


def write_gguf(row: Row, model: Any, path: Path, matrix_type: gguf.GGMLQuantizationType) -> None:
    """Write the model as llama.cpp's converter would, matrices in `matrix_type`.

    Names of tensors are those that the gguf package gives transformers' names.
    """
    c = model.config
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == row.gguf_arch)
    names = gguf.get_tensor_name_map(arch, c.num_hidden_layers)
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    writer = gguf.GGUFWriter(path, row.gguf_arch)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(c.vocab_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(1 if row.split_kv_b else c.num_key_value_heads)
    if row.split_kv_b:
        writer.add_key_length(c.kv_lora_rank + c.qk_rope_head_dim)
        writer.add_value_length(c.kv_lora_rank)
        writer.add_key_length_mla(c.qk_head_dim)
        writer.add_value_length_mla(c.v_head_dim)
    else:
        writer.add_key_length(getattr(c, "qk_head_dim", head_dim))
        writer.add_value_length(getattr(c, "v_head_dim", head_dim))
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    add_rope_scaling(writer, model, rope, head_dim)
    add_hyperparameters(writer, row.gguf_arch, c)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        for ours, values in as_in_gguf(row, names, name, tensor.float().numpy()):
            if row.gguf_arch in PERMUTED and (".attn_q." in ours or ".attn_k." in ours):
                heads = c.num_attention_heads if ".attn_q." in ours else c.num_key_value_heads
                values = permute(values, heads)
            if values.ndim == 1 or ours.endswith(".bias") or "gate_inp" in ours:
                writer.add_tensor(ours, values)
            else:
                flat = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
                packed = quantize(flat, matrix_type)
                shape = (*values.shape[:-1], packed.shape[-1])
                writer.add_tensor(ours, packed.reshape(shape), raw_dtype=matrix_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_in_gguf(
    row: Row, names: gguf.TensorNameMap, name: str, values: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """A tensor of transformers' state as GGUF has it, which may be two tensors."""
    if row.gguf_arch.startswith("gemma") and name.endswith("norm.weight"):
        values = values + 1
    if row.split_kv_b and name.endswith("kv_b_proj.weight"):
        plain, value = row.overrides["qk_nope_head_dim"], row.overrides["v_head_dim"]
        heads = values.reshape(-1, plain + value, values.shape[-1])
        block = f"blk.{name.split('.')[2]}"
        return [
            (f"{block}.attn_k_b.weight", heads[:, :plain].swapaxes(1, 2)),
            (f"{block}.attn_v_b.weight", heads[:, plain:]),
        ]
    name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        stem, kind = name, "weight"
    if ".experts.gate_up_proj" in name:
        layer = name.split(".")[2]
        gate, up = split_experts(row, values)
        suffix = "bias" if name.endswith("bias") else "weight"
        return [
            (f"blk.{layer}.ffn_gate_exps.{suffix}", gate),
            (f"blk.{layer}.ffn_up_exps.{suffix}", up),
        ]
    if ".experts.down_proj" in name:
        layer = name.split(".")[2]
        if row.gguf_arch == "gpt-oss" and values.ndim == 3:
            values = values.swapaxes(1, 2)
        suffix = "bias" if name.endswith("bias") else "weight"
        return [(f"blk.{layer}.ffn_down_exps.{suffix}", values)]
    found = names.get_name(stem)
    if found is None:
        raise KeyError(name)
    return [(f"{found}.{kind}", values)]


def split_experts(row: Row, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gate and up, which gpt-oss interleaves and the others stack."""
    if row.gguf_arch == "gpt-oss":
        values = values.swapaxes(1, 2) if values.ndim == 3 else values
        return values[:, ::2], values[:, 1::2]
    half = values.shape[1] // 2
    return values[:, :half], values[:, half:]


def add_rope_scaling(writer: gguf.GGUFWriter, model: Any, rope: Any, head_dim: int) -> None:
    """What a file says of rope scaling: keys, or tensors of factors."""
    kind = rope["rope_type"]
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(model, head_dim))
    elif kind == "longrope":
        original = model.config.original_max_position_embeddings
        ratio = model.config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors((1 + np.log(ratio) / np.log(original)) ** 0.5)
        writer.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "mscale_all_dim" in rope:
            unit = 0.1 if model.config.model_type.startswith("deepseek") else 1.0
            writer.add_rope_scaling_yarn_log_mul(unit * rope["mscale_all_dim"])
    elif kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def add_hyperparameters(writer: gguf.GGUFWriter, arch: str, c: Any) -> None:
    """The keys that only some architectures have."""
    if getattr(c, "sliding_window", None):
        writer.add_sliding_window(c.sliding_window)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch == "deepseek2":
        writer.add_kv_lora_rank(c.kv_lora_rank)
        if c.n_group:
            writer.add_expert_group_count(c.n_group)
            writer.add_expert_group_used_count(c.topk_group)
        if c.q_lora_rank:
            writer.add_q_lora_rank(c.q_lora_rank)
        writer.add_leading_dense_block_count(c.first_k_dense_replace)
        writer.add_expert_shared_count(c.n_shared_experts)
        writer.add_expert_weights_scale(c.routed_scaling_factor)
        writer.add_expert_weights_norm(c.norm_topk_prob)
        is_v3 = c.model_type == "deepseek_v3"
        kinds = gguf.ExpertGatingFuncType
        writer.add_expert_gating_func(kinds.SIGMOID if is_v3 else kinds.SOFTMAX)
    if arch == "mistral3":
        writer.add_attn_temperature_scale(c.rope_parameters["llama_4_scaling_beta"])
    if arch == "granite":
        writer.add_attention_scale(c.attention_multiplier)
        writer.add_embedding_scale(c.embedding_multiplier)
        writer.add_residual_scale(c.residual_multiplier)
        writer.add_logit_scale(c.logits_scaling)
    if getattr(c, "num_local_experts", None) or getattr(c, "num_experts", None):
        writer.add_expert_count(getattr(c, "num_local_experts", None) or c.num_experts)
        writer.add_expert_used_count(c.num_experts_per_tok)
        width = getattr(c, "moe_intermediate_size", c.intermediate_size)
        writer.add_expert_feed_forward_length(width)


def quantize(values: np.ndarray, matrix_type: gguf.GGMLQuantizationType) -> np.ndarray:
    """[n, row bytes] uint8; types the gguf package cannot write get random blocks instead.

    Those are other weights of the same size: what the blocks say is what they mean.
    """
    if matrix_type.name not in RANDOM_BLOCKS:
        return gguf.quants.quantize(values, matrix_type)
    block, half_range = RANDOM_BLOCKS[matrix_type.name]
    random = np.random.default_rng(values.shape)
    count = values.size // GGMLType[matrix_type.name].block_size
    blocks = random.integers(0, 256, (count, block.itemsize), np.uint8).view(block)[:, 0]
    for scale in ("d", "dmin"):
        if scale in block.names:
            blocks[scale] = random.uniform(0.5, 1.5, count) * 0.3 / half_range
    if "dmin" in block.names:
        # Mins that centre the weights, as quantisers choose them.
        blocks["dmin"] *= half_range / 31 / 31
    if matrix_type.name == "NVFP4":  # numbers of E4M3 from 1/32 to 1/2
        blocks["scales"] = 16 + blocks["scales"] % 32
    if matrix_type.name == "IQ1_M":  # a nibble of d in each word
        d = (random.uniform(0.5, 1.5, count) * 0.3 / half_range).astype(np.float16).view(np.uint16)
        nibbles = (d[:, np.newaxis] >> np.arange(0, 16, 4, dtype=np.uint16)) & 15
        blocks["scales"] = (blocks["scales"] & 0xFFF) | (nibbles << 12)
    return blocks.view(np.uint8).reshape(len(values), -1)


def permute(weights: np.ndarray, num_heads: int) -> np.ndarray:
    """Interleave each head's halves, so that rotary pairs become neighbours."""
    rows = weights.reshape(num_heads, 2, -1, weights.shape[-1] if weights.ndim == 2 else 1)
    return rows.swapaxes(1, 2).reshape(weights.shape)


def llama3_factors(model: Any, head_dim: int) -> np.ndarray:
    """Plain over scaled frequencies, what `rope_freqs.weight` holds."""
    scaled = model.model.rotary_emb.inv_freq.double().numpy()
    theta = model.config.rope_parameters["rope_theta"]
    plain = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    return (plain / scaled).astype(np.float32)
