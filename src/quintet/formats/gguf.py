"""GGUF model files: metadata and memory-mapped tensors.

Source: docs/gguf.md of ggml-org/ggml.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from quintet.formats.gguf_header import Header, read_header
from quintet.formats.gguf_metadata import ValueType
from quintet.formats.gguf_split import check_shards, shard_paths
from quintet.formats.mapped_file import ModelFile, open_model_file
from quintet.formats.quants import dequantize
from quintet.formats.weights import SourceIdentity, TensorEntry, TensorInfo

_File = TypeVar("_File", bound="GGUFFile")


class GGUFFile:
    """
    An open GGUF model: one file, or all shards of a split one.  A `WeightSource`.

    Attributes:
        path: the file that was opened.
        paths: all files of the model, in order.
        version: of the format, 2 or 3.
        alignment: of tensor data in the first file, in bytes.
        metadata: values by key, those of the first file.  Numbers, bools and strings are Python
            values, arrays of numbers read-only NumPy arrays, arrays of strings lazy sequences
            (`StringArray`), nested arrays tuples.  They stay valid after `close`.
        value_types: the types of the values in the file, by key.
        tensors: all tensors by name, in file order.
    """

    def __init__(
        self, path: Path, paths: list[Path], files: list[ModelFile], headers: list[Header]
    ) -> None:
        """Use `open`."""
        self.path = path
        self.paths = tuple(paths)
        self.version = headers[0].version
        self.alignment = headers[0].alignment
        self.metadata: Mapping[str, Any] = headers[0].metadata
        self.value_types: Mapping[str, ValueType] = headers[0].value_types
        self._files = files
        self._entries: dict[str, tuple[ModelFile, TensorEntry]] = {
            name: (file, entry)
            for file, header in zip(files, headers, strict=True)
            for name, entry in header.entries.items()
        }
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: entry.info for name, (_, entry) in self._entries.items()}
        )

    @classmethod
    def open(cls: type[_File], path: str | os.PathLike[str], *, use_mmap: bool = True) -> _File:
        """
        Open a file, and its siblings if it is a shard, and check all headers.

        Args:
            path: a GGUF file, or any shard `name-00001-of-00003.gguf` of a model.
            use_mmap: map the files; otherwise each tensor is read when it is asked for.

        Raises:
            ModelNotFoundError: no such file, or a shard is missing.
            ModelFormatError: a file breaks the format, or the shards do not belong together.
            UnsupportedModelError: a tensor in a number format whose size is not known.  One that
                is known but cannot be dequantised is only refused when asked for its values.
        """
        path = Path(path)
        opened = open_model_file(path, use_mmap=use_mmap)
        header = read_header(opened)
        paths = shard_paths(path, header)
        files = [
            opened if shard == path else open_model_file(shard, use_mmap=use_mmap)
            for shard in paths
        ]
        headers = [header if file is opened else read_header(file) for file in files]
        check_shards(paths, headers)
        return cls(path, paths, files, headers)

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

    def __enter__(self: _File) -> _File:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
