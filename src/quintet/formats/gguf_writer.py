"""Writes GGUF files: a header that is known in full, then tensor data as it comes.

The file appears under its name when it is complete, or not at all: until then it is a temporary
file beside it.

Source: docs/gguf.md of ggml-org/ggml.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf_metadata import ValueType
from quintet.formats.string_array import StringArray
from quintet.formats.weights import TensorInfo

DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

_VERSION = 3
_SCALARS = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
    ValueType.BOOL: "<?",
}
_ITEM_TYPES = {np.dtype(layout): kind for kind, layout in _SCALARS.items()}


@dataclass(frozen=True, slots=True)
class Field:
    """
    A metadata value and its type in the file.

    An ARRAY is a NumPy array of numbers or bools, a `StringArray` or list of str, or a tuple of
    arrays: what `GGUFFile.metadata` gives.
    """

    type: ValueType
    value: Any

    @staticmethod
    def of(value: Any) -> Field:
        """A str, bool, float (FLOAT32), whole number from 0 on (UINT32) or array as a field."""
        if isinstance(value, str):
            return Field(ValueType.STRING, value)
        if isinstance(value, bool):
            return Field(ValueType.BOOL, value)
        if isinstance(value, int):
            return Field(ValueType.UINT32, value)
        if isinstance(value, float):
            return Field(ValueType.FLOAT32, value)
        return Field(ValueType.ARRAY, value)


def tensor_info(name: str, shape: Sequence[int], ggml_type: GGMLType) -> TensorInfo:
    """A tensor's description, its size worked out."""
    return TensorInfo(name, tuple(shape), ggml_type, ggml_type.num_bytes(shape))


class GGUFWriter:
    """
    A GGUF file being written.  A context manager: leaving it without an exception puts the file
    in place, an exception removes what was written.

    Args:
        path: where the file will be; replaced if it is there.
        fields: metadata by key; general.alignment, if there, is obeyed.
        tensors: in the order their data will come.

    Raises:
        OSError: the file cannot be written.
        ValueError: a value that its type cannot hold, or two tensors of one name.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fields: Mapping[str, Field],
        tensors: Sequence[TensorInfo],
    ) -> None:
        self.path = Path(path)
        self._alignment = DEFAULT_ALIGNMENT
        if ALIGNMENT_KEY in fields:
            self._alignment = int(fields[ALIGNMENT_KEY].value)
        if self._alignment < 1 or self._alignment % 8:
            raise ValueError(f"expected an alignment of a multiple of 8, found {self._alignment}")
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise ValueError("expected a name of its own for each tensor")
        self._tensors = list(tensors)
        header = _header(fields, tensors, self._alignment)
        self._next = 0  # the tensor being written
        self._missing = tensors[0].num_bytes if tensors else 0  # bytes it still needs
        self._temporary = self.path.with_name(
            f".{self.path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        )
        self._file: BinaryIO = self._temporary.open("xb")
        try:
            self._file.write(header)
        except BaseException:
            self._discard()
            raise

    def write(self, name: str, data: npt.NDArray[np.uint8]) -> None:
        """
        Append to the tensor `name`, which must be the next one that is not complete.

        Raises:
            ValueError: another tensor's turn, or more bytes than the tensor has.
        """
        self._skip_empty()
        if self._next == len(self._tensors) or self._tensors[self._next].name != name:
            raise ValueError(f"it is not the turn of tensor {name!r}")
        if data.size > self._missing:
            raise ValueError(f"{data.size - self._missing} bytes too many for tensor {name!r}")
        self._file.write(np.ascontiguousarray(data).data)
        self._missing -= data.size
        if not self._missing:
            self._advance()

    def _advance(self) -> None:
        written = self._tensors[self._next].num_bytes
        self._file.write(bytes(-written % self._alignment))
        self._next += 1
        self._missing = (
            self._tensors[self._next].num_bytes if self._next < len(self._tensors) else 0
        )

    def _skip_empty(self) -> None:
        while self._next < len(self._tensors) and not self._missing:
            self._advance()

    def _discard(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def __enter__(self) -> GGUFWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._discard()
            return
        try:
            self._skip_empty()
            if self._next < len(self._tensors):
                name = self._tensors[self._next].name
                raise ValueError(f"{self._missing} bytes of tensor {name!r} are missing")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self.path)
        except BaseException:
            self._discard()
            raise


def file_size(
    fields: Mapping[str, Field], tensors: Sequence[TensorInfo], alignment: int = DEFAULT_ALIGNMENT
) -> int:
    """Bytes of the whole file."""
    return len(_header(fields, tensors, alignment)) + sum(
        -(-tensor.num_bytes // alignment) * alignment for tensor in tensors
    )


def _header(fields: Mapping[str, Field], tensors: Sequence[TensorInfo], alignment: int) -> bytes:
    parts = [b"GGUF", struct.pack("<IQQ", _VERSION, len(tensors), len(fields))]
    for key, field in fields.items():
        parts.append(_string(key))
        parts.append(struct.pack("<I", field.type))
        try:
            parts.append(_value(field.type, field.value))
        except (struct.error, TypeError, KeyError) as error:
            raise ValueError(f"{key}: {field.value!r:.80} is no {field.type.name}") from error
    offset = 0
    for tensor in tensors:
        shape = tensor.shape[::-1]  # the file has the contiguous dimension first
        parts.append(_string(tensor.name))
        parts.append(
            struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor.ggml_type, offset)
        )
        offset += -(-tensor.num_bytes // alignment) * alignment
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment)


def _string(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")  # as `StringArray` decodes
    return struct.pack("<Q", len(encoded)) + encoded


def _value(kind: ValueType, value: Any) -> bytes:
    if kind == ValueType.STRING:
        return _string(value)
    if kind != ValueType.ARRAY:
        return struct.pack(_SCALARS[kind], value)
    if isinstance(value, np.ndarray):
        item_type = _ITEM_TYPES[value.dtype.newbyteorder("<")]
        return struct.pack("<IQ", item_type, len(value)) + np.ascontiguousarray(value).tobytes()
    if isinstance(value, tuple):
        items = b"".join(_value(ValueType.ARRAY, item) for item in value)
        return struct.pack("<IQ", ValueType.ARRAY, len(value)) + items
    if not isinstance(value, StringArray | list):
        raise TypeError(type(value))
    texts = b"".join(_string(text) for text in value)
    return struct.pack("<IQ", ValueType.STRING, len(value)) + texts
