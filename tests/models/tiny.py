"""Tiny random models, as Hugging Face directories and as GGUF files, for parity tests."""

from __future__ import annotations

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
        gguf_arch: its `general.architecture`; None where GGUF stores it as another row does.
    """

    id: str
    hf: str  # the class pair's stem in transformers, e.g. "Qwen3"
    gguf_arch: str
    overrides: dict[str, Any] = field(default_factory=dict)


PARITY = [
    Row("qwen3", "Qwen3", "qwen3", {"head_dim": 32}),
    Row("qwen3-tied", "Qwen3", "qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    Row("qwen2", "Qwen2", "qwen2"),
    Row("llama", "Llama", "llama"),
    Row("llama3-rope", "Llama", "llama", {"rope_parameters": LLAMA3_ROPE}),
    Row("llama-mha", "Llama", "llama", {"num_key_value_heads": 4}),
    Row("mistral", "Mistral", "llama", {"head_dim": 32, "sliding_window": None}),
]


def make_hf(row: Row, directory: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """Save a random model of this row in `directory` and return it, in float64.

    Weights are drawn wide enough that attention and gates are far from uniform.
    """
    config_class = getattr(transformers, row.hf + "Config")
    config = config_class(**{**BASE, **row.overrides}, attn_implementation="eager")
    torch.manual_seed(hash_of(row.id))
    model = getattr(transformers, row.hf + "ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "bias" not in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            else:
                fan_in = parameter.shape[-1] if parameter.ndim == 2 else 64
                parameter.copy_(torch.randn_like(parameter) * 1.2 / fan_in**0.5)
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


NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(row: Row, model: Any, path: Path, matrix_type: gguf.GGMLQuantizationType) -> None:
    """Write the model as llama.cpp's converter would, matrices in `matrix_type`."""
    c = model.config
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    writer = gguf.GGUFWriter(path, row.gguf_arch)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    if c.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(model, head_dim))
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if row.gguf_arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = c.num_attention_heads if "q_proj" in name else c.num_key_value_heads
            values = permute(values, heads)
        ours = gguf_name(name)
        if values.ndim == 1:
            writer.add_tensor(ours, values)
        else:
            packed = quantize(np.ascontiguousarray(values), matrix_type)
            writer.add_tensor(ours, packed, raw_dtype=matrix_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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


def gguf_name(name: str) -> str:
    """Hugging Face tensor name to GGUF's."""
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[stem]}.{kind}"


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
