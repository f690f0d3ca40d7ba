"""What a loaded model can do with whole texts, from its program and its file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quintet.engine.embedding import EmbeddingSpec
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import Model, Pooling

_YES = ("yes", "relevant", "true")
_JUDGES = ("qwen3",)  # whose rerankers are trained to answer yes or no


def embedding_spec(model: Model, source: GGUFFile | SafetensorsDir) -> EmbeddingSpec:
    """The model's spec.

    A model that says nothing about pooling gets what its kind is trained for: the mean of an
    encoder's rows, the last row of a decoder, which alone has seen the whole text.
    """
    program = model.program
    pooling: Pooling = "last" if program.is_causal else "mean"
    if model.pooling is not None and model.pooling != "rank":
        pooling = model.pooling
    if model.head == "labels":
        num_labels = program.output.width
        labels = _labels(source)
        return EmbeddingSpec(
            hidden_size=program.hidden.width,
            pooling=pooling,
            is_causal=program.is_causal,
            ranks="classifier",
            num_labels=num_labels,
            relevant_label=_relevant(labels, num_labels),
            has_token_types=_has_token_types(model),
        )
    is_judge = model.head == "logits" and model.config.architecture in _JUDGES
    return EmbeddingSpec(
        hidden_size=program.hidden.width,
        pooling=pooling,
        is_causal=program.is_causal,
        ranks="judge" if is_judge else "no",
    )


def _has_token_types(model: Model) -> bool:
    """RoBERTa keeps a table of them with a single row."""
    name = "token_types.weight"
    return name in model.program.weights and model.weights.tensors[name].shape[0] > 1


def _labels(source: GGUFFile | SafetensorsDir) -> list[str]:
    if isinstance(source, GGUFFile):
        architecture = source.metadata.get("general.architecture")
        found: Any = source.metadata.get(f"{architecture}.classifier.output_labels", ())
        return [str(label) for label in found] if isinstance(found, Sequence) else []
    names = source.config.get("id2label")
    if not isinstance(names, dict):
        return []
    return [str(names.get(str(i), "")) for i in range(len(names))]


def _relevant(labels: list[str], num_labels: int) -> int:
    """Of several labels the one called yes; else the last, as 1 stands for true."""
    for index, label in enumerate(labels[:num_labels]):
        if label.lower() in _YES:
            return index
    return num_labels - 1
