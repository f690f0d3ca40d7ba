"""A Hugging Face directory, seen as the GGUF file it can become.

Names of tensors and keys are those of the loader (`quintet.models`): what runs from the directory
is what is written.

Source: docs/gguf.md of ggml-org/ggml for keys; conversion/ (formerly convert_hf_to_gguf.py) of
ggml-org/llama.cpp for what its readers expect.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelNotFoundError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf_writer import Field, tensor_info
from quintet.formats.safetensors import SafetensorsDir
from quintet.formats.weights import TensorInfo, WeightSource
from quintet.models import GGUFModel, as_gguf
from quintet.tools.convert_vocabulary import vocabulary_fields
from quintet.tools.recipes import is_quantizable

_SCORES = "cls.output.weight"


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
            found = as_gguf(self._source)
            self._weights = found.weights
            self.paths = self._source.paths
            self.tensors: Mapping[str, TensorInfo] = {
                name: _as_written(name, info) for name, info in found.weights.tensors.items()
            }
            self.fields: Mapping[str, Field] = _fields(found, self._source.config, path)
        except BaseException:
            self._source.close()
            raise

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """See `ModelSource.raw`."""
        if self.tensors[name].ggml_type != self._weights.tensors[name].ggml_type:
            return self._weights.dequantized(name).reshape(-1).view(np.uint8)
        return self._weights.raw(name)

    def __enter__(self) -> HFSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.close()


def _as_written(name: str, info: TensorInfo) -> TensorInfo:
    """Vectors, and matrices that no recipe touches, are in float32: llama.cpp's kernels want it."""
    stored = tensor_info(name, info.shape, info.ggml_type)
    return stored if is_quantizable(stored) else tensor_info(name, info.shape, GGMLType.F32)


def _fields(found: GGUFModel, config: Mapping[str, Any], path: Path) -> Mapping[str, Field]:
    keys = dict(found.keys)
    architecture = keys.pop("general.architecture")
    vocabulary = vocabulary_fields(path, found.model.config.vocab_size)
    return {
        "general.architecture": Field.of(architecture),
        "general.type": Field.of("model"),
        **{key: Field.of(value) for key, value in keys.items()},
        **_labels(architecture, found.weights, config),
        **vocabulary,
        **_token_types(found.weights),
    }


def _token_types(weights: WeightSource) -> dict[str, Field]:
    """How many kinds of tokens an encoder tells apart, where it does."""
    info = weights.tensors.get("token_types.weight")
    if info is None:
        return {}
    return {"tokenizer.ggml.token_type_count": Field.of(info.shape[0])}


def _labels(
    architecture: str, weights: WeightSource, config: Mapping[str, Any]
) -> dict[str, Field]:
    """The names of a classifier's labels: by their number readers know its size."""
    info = weights.tensors.get(_SCORES)
    if info is None:
        return {}
    names = config.get("id2label")
    names = names if isinstance(names, Mapping) else {}
    labels = [str(names.get(str(i), f"LABEL_{i}")) for i in range(info.shape[0])]
    return {f"{architecture}.classifier.output_labels": Field.of(labels)}
