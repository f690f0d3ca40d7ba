"""Writes a checkpoint as GGUF: matrices in Q8_0, norms in F32.

python tools/train_demo/export.py build/demo/model.pt src/quintet/hub/data/demo.gguf
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, quants
from model import DemoConfig
from template import CHAT_TEMPLATE

from tokenizer import CONTROL_TOKENS, USER_DEFINED_TOKENS, VOCAB_SIZE

DESCRIPTION = (
    "A toy: a tiny Qwen3 model trained on generated text so that Quintet can be tried and tested"
    " offline. Do not rely on what it says."
)
TENSOR_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}
BLOCK_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("gguf", type=Path)
    arguments = parser.parse_args()
    saved = torch.load(arguments.checkpoint, weights_only=True)
    tokenizer = json.loads((arguments.checkpoint.parent / "tokenizer.json").read_text("utf-8"))
    arguments.gguf.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(arguments.gguf, "qwen3")
    add_metadata(writer, DemoConfig(**saved["config"]))
    add_vocabulary(writer, tokenizer)
    add_tensors(writer, saved["model"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.gguf}: {arguments.gguf.stat().st_size / 1e6:.2f} MB")


def add_metadata(writer: GGUFWriter, config: DemoConfig) -> None:
    writer.add_name("Quintet demo")
    writer.add_description(DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_layers)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)


def add_vocabulary(writer: GGUFWriter, tokenizer: dict) -> None:  # type: ignore[type-arg]
    ids = dict(tokenizer["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(VOCAB_SIZE)):
        raise ValueError(f"expected ids 0 to {VOCAB_SIZE - 1} without gaps")
    types = [TokenType.NORMAL] * VOCAB_SIZE
    for token in CONTROL_TOKENS:
        types[ids[token]] = TokenType.CONTROL
    for token in USER_DEFINED_TOKENS:
        types[ids[token]] = TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(ids["<|endoftext|>"])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_tensors(writer: GGUFWriter, state: dict[str, torch.Tensor]) -> None:
    for name, tensor in state.items():
        values = tensor.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values.astype(np.float32))
            continue
        packed = quants.quantize(values, GGMLQuantizationType.Q8_0)
        writer.add_tensor(gguf_name(name), packed, raw_dtype=GGMLQuantizationType.Q8_0)


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`."""
    if name in TENSOR_NAMES:
        return TENSOR_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{BLOCK_NAMES[rest.removesuffix('.weight')]}.weight"


if __name__ == "__main__":
    main()
