"""Greedy answers of a stored file through `transformers`, weights and vocabulary from the GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from corpus.sample import Message
from export import BLOCK_NAMES, TENSOR_NAMES
from gguf import GGUFReader, quants
from template import render
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen3Config, Qwen3ForCausalLM

from tokenizer import QWEN2_PATTERN


class Answerer:
    """Runs the dequantised weights in float32."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.tokenizer = stored_tokenizer(reader)
        self.model = stored_model(reader)
        self.eos_token_id = int(reader.get_field("tokenizer.ggml.eos_token_id").contents())

    def chats(
        self,
        chats: list[list[Message]],
        tools: list[dict[str, Any]] | None = None,
        max_new_tokens: int = 64,
    ) -> list[str]:
        prompts = [render(messages, tools, add_generation_prompt=True) for messages in chats]
        return self.complete(prompts, max_new_tokens)

    @torch.inference_mode()
    def complete(self, prompts: list[str], max_new_tokens: int = 64) -> list[str]:
        """Continuations up to <|im_end|>; one that did not end by itself ends in '[...]'."""
        answers: list[str] = []
        for first in range(0, len(prompts), 32):
            group = [self.tokenizer.encode(text).ids for text in prompts[first : first + 32]]
            width = max(len(ids) for ids in group)
            padded = torch.tensor([[0] * (width - len(ids)) + ids for ids in group])
            mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in group])
            out = self.model.generate(
                input_ids=padded, attention_mask=mask, do_sample=False, pad_token_id=0,
                eos_token_id=self.eos_token_id, max_new_tokens=max_new_tokens,
            )  # fmt: skip
            answers += [self._text(row[width:].tolist()) for row in out]
        return answers

    def _text(self, ids: list[int]) -> str:
        ended = self.eos_token_id in ids
        kept = ids[: ids.index(self.eos_token_id)] if ended else ids
        return self.tokenizer.decode(kept, skip_special_tokens=False) + ("" if ended else "[...]")


def stored_tokenizer(reader: GGUFReader) -> Tokenizer:
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    types = reader.get_field("tokenizer.ggml.token_type").contents()
    merges = reader.get_field("tokenizer.ggml.merges").contents()
    added = [token for token, kind in zip(tokens, types, strict=True) if kind != 1]
    vocabulary = {token: i for i, token in enumerate(tokens) if token not in added}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in added])
    return tokenizer


def stored_model(reader: GGUFReader) -> Qwen3ForCausalLM:
    def number(key: str) -> Any:
        return reader.get_field(f"qwen3.{key}").contents()

    config = Qwen3Config(
        vocab_size=number("vocab_size"), hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"), num_hidden_layers=number("block_count"),
        num_attention_heads=number("attention.head_count"), head_dim=number("attention.key_length"),
        num_key_value_heads=number("attention.head_count_kv"), tie_word_embeddings=True,
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=number("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    state = {
        hugging_face_name(tensor.name): torch.from_numpy(
            quants.dequantize(tensor.data, tensor.tensor_type).copy()
        )
        for tensor in reader.tensors
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"tensors do not fit: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def hugging_face_name(name: str) -> str:
    """`blk.3.ffn_up.weight` -> `model.layers.3.mlp.up_proj.weight`."""
    for theirs, stored in TENSOR_NAMES.items():
        if stored == name:
            return theirs
    _, layer, part, _ = name.split(".")
    theirs = next(key for key, stored in BLOCK_NAMES.items() if stored == part)
    return f"model.layers.{layer}.{theirs}.weight"
