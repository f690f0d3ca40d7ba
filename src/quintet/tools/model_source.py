"""A model to be written as GGUF: its metadata and its tensors under GGUF's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_writer import Field
from quintet.formats.weights import TensorInfo


class ModelSource(Protocol):
    """What `quantize` and `convert` read; a context manager."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files it is read from."""

    @property
    def fields(self) -> Mapping[str, Field]:
        """GGUF metadata."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By GGUF name, in the order to write them."""

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """[num_bytes] uint8, as a GGUF file has them."""

    def __enter__(self) -> ModelSource: ...

    def __exit__(self, *exception: object) -> None: ...


class GGUFSource:
    """A GGUF file, or all shards of one, as the single file it will be."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Raises:
            ModelNotFoundError, ModelFormatError, UnsupportedModelError: see `GGUFFile.open`.
        """
        self._file = GGUFFile.open(path)
        self.paths = self._file.paths
        self.tensors = self._file.tensors
        self.fields: Mapping[str, Field] = {
            key: Field(self._file.value_types[key], value)
            for key, value in self._file.metadata.items()
            if not key.startswith("split.")
        }

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """See `ModelSource.raw`."""
        return self._file.raw(name)

    def __enter__(self) -> GGUFSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
