"""A Qwen3 of some 40,000 random weights with a byte-level vocabulary, written as a GGUF file.

Its answers mean nothing, but they depend on every token before them.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

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
    rng = np.random.default_rng(7)
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

    def matrix(name: str, rows: int, columns: int, scale: float = 0.3) -> None:
        values = rng.standard_normal((rows, columns)).astype(np.float32) * scale
        writer.add_tensor(f"{name}.weight", values)

    def norm(name: str, width: int) -> None:
        writer.add_tensor(f"{name}.weight", 1 + rng.random(width, np.float32) / 4)

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
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
