"""Tiny random encoders, as Hugging Face directories and as GGUF files, and their oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from backends.steps import Seq, run_hidden
from models.tiny import hash_of

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 160,
    "pad_token_id": 0,
}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}


@dataclass(frozen=True)
class Encoder:
    """One row of the parity table.

    Args:
        hf: the model class of transformers.
        config: its configuration class.
        arch: of the GGUF file.
    """

    id: str
    hf: str
    config: str
    arch: gguf.MODEL_ARCH
    overrides: dict[str, Any] = field(default_factory=dict)


BERT, NOMIC, MODERN = gguf.MODEL_ARCH.BERT, gguf.MODEL_ARCH.NOMIC_BERT, gguf.MODEL_ARCH.MODERN_BERT
WINDOW = {**IDS, "local_attention": 16}
ENCODERS = [
    Encoder("bert", "BertModel", "BertConfig", BERT),
    Encoder("bert-mlm", "BertForMaskedLM", "BertConfig", BERT),
    Encoder("nomic", "NomicBertModel", "NomicBertConfig", NOMIC, {"head_dim": 16}),
    Encoder("modern", "ModernBertModel", "ModernBertConfig", MODERN, WINDOW),
    Encoder(
        "modern-biases",
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        MODERN,
        {**WINDOW, "attention_bias": True, "mlp_bias": True, "norm_bias": True},
    ),
]
RANKERS = [
    Encoder("bert-ranker", "BertForSequenceClassification", "BertConfig", BERT, {"num_labels": 1}),
    Encoder(
        "modern-ranker",
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        MODERN,
        {**WINDOW, "num_labels": 3},
    ),
]


def make_encoder(row: Encoder, directory: Path, **overrides: Any) -> Any:
    """Save a random model of this row in `directory` and return it, in float64."""
    settings = {**BASE, **row.overrides, **overrides}
    config = getattr(transformers, row.config)(**settings)
    torch.manual_seed(hash_of(row.id))
    model = getattr(transformers, row.hf)._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "bias" not in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            else:
                fan_in = parameter.shape[-1] if parameter.ndim == 2 else 64
                parameter.copy_(torch.randn_like(parameter) * 1.2 / fan_in**0.5)
    model.save_pretrained(directory)
    return model.double()


def oracle(model: Any, token_ids: list[int], token_types: list[int] | None = None) -> np.ndarray:
    """The last hidden rows, or a classifier's scores, of one text."""
    base = model if hasattr(model, "embeddings") else model.base_model
    target = model if hasattr(model, "classifier") else base
    extra = {} if token_types is None else {"token_type_ids": torch.tensor([token_types])}
    with torch.no_grad():
        output = target(torch.tensor([token_ids]), **extra)
    found = output.logits if target is not base else output.last_hidden_state
    return found[0].numpy()


def write_encoder_gguf(row: Encoder, directory: Path, path: Path) -> None:
    """Write the checkpoint in `directory` under the names that the gguf package gives it."""
    config = transformers.AutoConfig.from_pretrained(directory)
    names = gguf.get_tensor_name_map(row.arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[row.arch])
    add_hyperparameters(writer, config)
    for name, values in load_file(directory / "model.safetensors").items():
        ours = gguf_name(names, name)
        if ours is not None:
            writer.add_tensor(ours, values)
    finish(writer)


def add_hyperparameters(writer: gguf.GGUFWriter, config: Any) -> None:
    """The keys that llama.cpp's converter writes for these architectures."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type == "modernbert":
        writer.add_layer_norm_eps(config.norm_eps)
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        writer.add_float32(
            "modern-bert.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"]
        )
        writer.add_sliding_window(config.local_attention)
    else:
        writer.add_layer_norm_eps(config.layer_norm_eps)
    if config.model_type == "nomic_bert":
        writer.add_rope_freq_base(rope["rope_theta"])


def gguf_name(names: gguf.TensorNameMap, name: str) -> str | None:
    """A checkpoint's tensor name to GGUF's; None for what converters drop."""
    if name.startswith(("cls.", "decoder.", "head.decoder")) or "position_ids" in name:
        return None
    stem, _, kind = name.removeprefix("bert.").removeprefix("model.").rpartition(".")
    by_hand = {"pooler.dense": "cls", "classifier": "cls.output"}  # as ours; see models/bert.py
    found = by_hand.get(stem) or names.get_name(stem)
    if found is None:
        raise KeyError(name)
    return f"{found}.{kind}"


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def hidden_rows(executor: Any, texts: list[list[int]]) -> list[np.ndarray]:
    """Every row of every text, all texts in one step."""
    first_blocks = np.cumsum([0] + [-(-len(text) // 16) for text in texts]).tolist()
    sequences = [
        Seq(text, list(range(first, last)))
        for text, first, last in zip(texts, first_blocks, first_blocks[1:], strict=False)
    ]
    return run_hidden(executor, sequences)
