"""Hugging Face model directories: config.json and one or many safetensors files.

Source: the format section of the README of huggingface/safetensors; the file names and the
index are those of transformers' `save_pretrained`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError, ModelNotFoundError
from quintet.formats.mapped_file import ModelFile, open_model_file
from quintet.formats.quants import dequantize
from quintet.formats.safetensors_header import read_header
from quintet.formats.strict_json import load_object
from quintet.formats.weights import SourceIdentity, TensorEntry, TensorInfo

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
CONFIG_NAME = "config.json"
GENERATION_CONFIG_NAME = "generation_config.json"

MAX_CONFIG_BYTES = 4 * 2**20
MAX_INDEX_BYTES = 64 * 2**20
MAX_SHARDS = 1024

_Dir = TypeVar("_Dir", bound="SafetensorsDir")


class SafetensorsDir:
    """
    An open Hugging Face model.  A `WeightSource`; tensor names are the checkpoint's.

    Attributes:
        directory: where tokenizer.json and its like are.
        paths: the safetensors files, in the order their names sort.
        config: config.json.
        generation_config: generation_config.json, {} where there is none.
        tensors: all tensors by name, file after file.
    """

    def __init__(
        self,
        directory: Path,
        files: list[ModelFile],
        *,
        config: dict[str, Any],
        generation_config: dict[str, Any],
    ) -> None:
        """Use `open`."""
        self.directory = directory
        self.paths = tuple(file.path for file in files)
        self.config = config
        self.generation_config = generation_config
        self._files = files
        self._entries: dict[str, tuple[ModelFile, TensorEntry]] = {}
        for file in files:
            for name, entry in read_header(file).items():
                if name in self._entries:
                    raise ModelFormatError(
                        f"the tensor is in {self._entries[name][0].path.name} too",
                        path=file.path,
                        part=f"tensor {name!r}",
                    )
                self._entries[name] = (file, entry)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: entry.info for name, (_, entry) in self._entries.items()}
        )

    @classmethod
    def open(cls: type[_Dir], path: str | os.PathLike[str], *, use_mmap: bool = True) -> _Dir:
        """
        Open a model directory, or one safetensors file, and check all headers.

        A directory needs config.json and model.safetensors, or else an index that names its
        shards.  Beside a single file config.json is read if it is there ({} otherwise).

        Args:
            use_mmap: map the files; otherwise each tensor is read when it is asked for.

        Raises:
            ModelNotFoundError: a file that must be there is not.
            ModelFormatError: a file breaks its format, or the index and the shards disagree.
            UnsupportedModelError: a tensor with a dtype we have no number format for.
        """
        path = Path(path)
        if not os.path.isdir(path):
            files = [open_model_file(path, use_mmap=use_mmap)]
            return cls(
                path.parent,
                files,
                config=_optional_object(path.parent / CONFIG_NAME),
                generation_config=_optional_object(path.parent / GENERATION_CONFIG_NAME),
            )
        config = load_object(path / CONFIG_NAME, max_bytes=MAX_CONFIG_BYTES)
        generation_config = _optional_object(path / GENERATION_CONFIG_NAME)
        # With both a single file and an index, transformers takes the single file.
        if os.path.exists(path / SINGLE_NAME):
            files = [open_model_file(path / SINGLE_NAME, use_mmap=use_mmap)]
            return cls(path, files, config=config, generation_config=generation_config)
        if not os.path.exists(path / INDEX_NAME):
            raise ModelNotFoundError(f"{path} has neither {SINGLE_NAME} nor {INDEX_NAME}")
        weight_map = _read_index(path / INDEX_NAME)
        files = [
            open_model_file(path / name, use_mmap=use_mmap)
            for name in sorted(set(weight_map.values()))
        ]
        source = cls(path, files, config=config, generation_config=generation_config)
        source._check_index(weight_map)
        return source

    @property
    def identity(self) -> SourceIdentity:
        """Which files these are, as they were when they were opened."""
        return SourceIdentity.of(self._files, (entry for _, entry in self._entries.values()))

    @property
    def is_mapped(self) -> bool:
        """Whether `raw` gives views of the mapped files."""
        return all(file.is_mapped for file in self._files)

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes as stored: [num_bytes] uint8, read-only."""
        file, entry = self._entries[name]
        return file.read(entry.offset, entry.info.num_bytes)

    def dequantized(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor's values: a fresh float32 array of its shape."""
        info = self.tensors[name]
        return dequantize(self.raw(name), info.ggml_type, info.shape)

    def close(self) -> None:
        """Let go of the files; views handed out stay valid.  Safe to call twice."""
        for file in self._files:
            file.close()

    def _check_index(self, weight_map: dict[str, str]) -> None:
        for name, shard in weight_map.items():
            found = self._entries.get(name)
            if found is None or found[0].path.name != shard:
                where = "no shard" if found is None else found[0].path.name
                raise ModelFormatError(
                    f"expected the tensor in {shard}, found it in {where}",
                    path=self.directory / INDEX_NAME,
                    part=f"tensor {name!r}",
                )

    def __enter__(self: _Dir) -> _Dir:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _optional_object(path: Path) -> dict[str, Any]:
    return load_object(path, max_bytes=MAX_CONFIG_BYTES) if os.path.exists(path) else {}


def _read_index(path: Path) -> dict[str, str]:
    """The shard of each tensor; every shard a plain file name in the index's directory."""
    weight_map = load_object(path, max_bytes=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFormatError(
            "expected an object of shards by tensor", path=path, part="weight_map"
        )
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_plain_name(shard):
            raise ModelFormatError(
                f"expected the name of a safetensors file in the directory, found {shard!r:.80}",
                path=path,
                part=f"weight_map of tensor {name!r:.80}",
            )
    num_shards = len(set(weight_map.values()))
    if num_shards > MAX_SHARDS:
        raise ModelFormatError(
            f"expected at most {MAX_SHARDS} shards, found {num_shards}",
            path=path,
            part="weight_map",
        )
    return weight_map


def _is_plain_name(name: str) -> bool:
    """Whether a name from a file can only mean a file beside that file."""
    return (
        name.endswith(".safetensors")
        and not name.startswith(".")
        and not any(character in name for character in "/\\:\0")
    )
