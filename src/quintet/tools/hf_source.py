"""A Hugging Face directory, seen as the GGUF file it can become.

Tensor names come from the table that the loader reads such directories with
(`Architecture.weight_names`), so what runs from the directory is what is written.

Source: docs/gguf.md of ggml-org/ggml for keys; conversion/ (formerly convert_hf_to_gguf.py) of
ggml-org/llama.cpp for what its readers expect of Llama-shaped models.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelNotFoundError, UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf_writer import Field, tensor_info
from quintet.formats.safetensors import SafetensorsDir
from quintet.formats.weights import TensorInfo
from quintet.models import Config, load_model
from quintet.tools.convert_vocabulary import vocabulary_fields

_ROPE_FACTORS = "rope_freqs.weight"
_ROPE_KINDS = ("default", "linear", "llama3")
# By architecture, the matrices whose rows GGUF has in another order: rotary pairs side by side.
_INTERLEAVED = {"llama": ("attn_q", "attn_k"), "qwen2": (), "qwen3": ()}


class HFSource:
    """A Hugging Face directory as a `ModelSource`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Raises:
            ModelNotFoundError, ModelFormatError, UnsupportedModelError: as `convert` does.
        """
        path = Path(path)
        if not path.is_dir():
            raise ModelNotFoundError(f"no such directory: {path}")
        self._source = SafetensorsDir.open(path)
        try:
            self._open(path)
        except BaseException:
            self._source.close()
            raise

    def _open(self, path: Path) -> None:
        model = load_model(self._source)
        config = model.config
        if not isinstance(config, Config) or config.architecture not in _INTERLEAVED:
            raise UnsupportedModelError(
                "architecture to convert", config.architecture, _INTERLEAVED
            )
        kind = _rope_kind(self._source.config)
        if kind not in _ROPE_KINDS:
            raise UnsupportedModelError("rope scaling to convert", kind, _ROPE_KINDS)
        if "blk.0.ffn_up.weight" not in model.program.weights:
            raise UnsupportedModelError("architecture to convert", "one with experts")
        self._config = config
        self._weights = model.weights
        self._factors = _rope_factors(config, self._source.config)
        self.paths = self._source.paths
        self.tensors = self._infos(model.program.weights)
        self.fields: Mapping[str, Field] = {
            **_hyperparameters(config, self._source.config, self.tensors, path),
            **vocabulary_fields(path, config.vocab_size),
        }

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """See `ModelSource.raw`."""
        if name == _ROPE_FACTORS and self._factors is not None:
            return self._factors.view(np.uint8)
        stored = self._weights.tensors[name]
        if self.tensors[name].ggml_type != stored.ggml_type:
            return self._weights.dequantized(name).reshape(-1).view(np.uint8)
        raw = self._weights.raw(name)
        return self._interleaved(name, raw, stored)

    def _infos(self, read: Any) -> Mapping[str, TensorInfo]:
        """What will be in the file: vectors in float32, and only what the program reads."""
        infos = {}
        if self._factors is not None:
            infos[_ROPE_FACTORS] = tensor_info(_ROPE_FACTORS, self._factors.shape, GGMLType.F32)
        for name, stored in self._weights.tensors.items():
            if name in read:
                kind = stored.ggml_type if len(stored.shape) > 1 else GGMLType.F32
                infos[name] = tensor_info(name, stored.shape, kind)
        return infos

    def _interleaved(
        self, name: str, raw: npt.NDArray[np.uint8], info: TensorInfo
    ) -> npt.NDArray[np.uint8]:
        """Rows of each head in GGUF's order: i and i + half become neighbours."""
        parts = name.split(".")
        if len(parts) != 4 or parts[2] not in _INTERLEAVED[self._config.architecture]:
            return raw
        config = self._config
        num_heads = config.num_heads if parts[2] == "attn_q" else config.num_kv_heads
        rows = raw.reshape(num_heads, 2, info.shape[0] // num_heads // 2, -1)
        return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)

    def __enter__(self) -> HFSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.close()


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of rotary embeddings, checked when the model was loaded."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta") or 10000.0, **rope}


def _rope_kind(config: Mapping[str, Any]) -> str:
    rope = _rope(config)
    return str(rope.get("rope_type", rope.get("type", "default")))


def _rope_factors(config: Config, hf: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """[head_dim / 2] plain over scaled frequencies, where no key of GGUF says the same."""
    rope = _rope(hf)
    if _rope_kind(hf) != "llama3":
        return None
    half = len(config.rope_inv_freq)
    plain = float(rope["rope_theta"]) ** (-np.arange(half) / half)
    return (plain / np.array(config.rope_inv_freq)).astype(np.float32)


def _hyperparameters(
    config: Config, hf: Mapping[str, Any], tensors: Mapping[str, TensorInfo], path: Path
) -> dict[str, Field]:
    rope = _rope(hf)
    values: dict[str, Any] = {
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": tensors["blk.0.ffn_up.weight"].shape[0],
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": 2 * len(config.rope_inv_freq),
        "rope.freq_base": float(rope["rope_theta"]),
        "vocab_size": config.vocab_size,
    }
    if _rope_kind(hf) == "linear":
        values["rope.scaling.type"] = "linear"
        values["rope.scaling.factor"] = float(rope["factor"])
    prefix = config.architecture + "."
    return {
        "general.architecture": Field.of(config.architecture),
        "general.type": Field.of("model"),
        "general.name": Field.of(path.resolve().name),
        **{prefix + key: Field.of(value) for key, value in values.items()},
    }
