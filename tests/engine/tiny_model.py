"""A Qwen3 of some 40,000 random weights with a byte-level vocabulary, as GGUF and safetensors.

Its answers mean nothing, but they depend on every token before them.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONTEXT_LENGTH = 256
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN = 32, 2, 4, 2, 16, 64
CONTROL, NORMAL = 3, 1
TEMPLATE = (
    "{% if tools %}<|im_start|>tools{{ tools | length }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)


def byte_tokens() -> list[str]:
    """GPT-2's 256 printable stand-ins for bytes, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


TOKENS = [*byte_tokens(), "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BOS, IM_START, IM_END = 257, 258, 259


def write_tiny_model(path: Path) -> None:
    """Write the model; the same bytes every time."""
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([NORMAL] * 257 + [CONTROL] * 3)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(IM_END)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)

    for name, values in tiny_weights().items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tiny_hf_model(directory: Path) -> None:
    """The same model as a Hugging Face directory."""
    directory.mkdir(exist_ok=True)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": CONTEXT_LENGTH,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "vocab_size": len(TOKENS),
        "tie_word_embeddings": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [IM_END, BOS]}))
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(TOKENS[:257])}, [("a", "b")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(TOKENS[257:])
    tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer_config = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    weights = {hf_name(name): values for name, values in tiny_weights().items()}
    save_file(weights, directory / "model.safetensors")


def tiny_weights() -> dict[str, np.ndarray]:
    """Tensors by GGUF name, float32; the same every time."""
    rng = np.random.default_rng(7)
    weights: dict[str, np.ndarray] = {}

    def matrix(name: str, rows: int, columns: int, scale: float = 0.3) -> None:
        weights[f"{name}.weight"] = rng.standard_normal((rows, columns), np.float32) * scale

    def norm(name: str, width: int) -> None:
        weights[f"{name}.weight"] = 1 + rng.random(width, np.float32) / 4

    matrix("token_embd", len(TOKENS), HIDDEN, 1.0)
    norm("output_norm", HIDDEN)
    matrix("output", len(TOKENS), HIDDEN)
    for i in range(LAYERS):
        norm(f"blk.{i}.attn_norm", HIDDEN)
        matrix(f"blk.{i}.attn_q", HEADS * HEAD_DIM, HIDDEN)
        matrix(f"blk.{i}.attn_k", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(f"blk.{i}.attn_v", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(f"blk.{i}.attn_output", HIDDEN, HEADS * HEAD_DIM)
        norm(f"blk.{i}.attn_q_norm", HEAD_DIM)
        norm(f"blk.{i}.attn_k_norm", HEAD_DIM)
        norm(f"blk.{i}.ffn_norm", HIDDEN)
        matrix(f"blk.{i}.ffn_gate", FFN, HIDDEN)
        matrix(f"blk.{i}.ffn_up", FFN, HIDDEN)
        matrix(f"blk.{i}.ffn_down", HIDDEN, FFN)
    return weights


HF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    """GGUF tensor name to Hugging Face's."""
    stem = name.removesuffix(".weight")
    if stem in HF_NAMES:
        return HF_NAMES[stem] + ".weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{HF_NAMES[part]}.weight"
