"""GGUF files by hand, so that every field can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from quintet.formats.gguf_metadata import ValueType

_LAYOUTS = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<B",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}


def u32(value: int) -> bytes:
    """A u32 field."""
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    """A u64 field."""
    return struct.pack("<Q", value)


def string(text: str | bytes, *, length: int | None = None) -> bytes:
    """A string field, whose length may be a lie."""
    encoded = text.encode() if isinstance(text, str) else text
    return u64(len(encoded) if length is None else length) + encoded


def scalar(value_type: ValueType, value: float) -> bytes:
    """A value of a fixed-size type, or a string."""
    return struct.pack(_LAYOUTS[value_type], value)


def array(item_type: int, items: Sequence[bytes], *, count: int | None = None) -> bytes:
    """An array value, whose count may be a lie."""
    return u32(item_type) + u64(len(items) if count is None else count) + b"".join(items)


def pair(key: str | bytes, value_type: int, value: bytes) -> bytes:
    """A metadata pair."""
    return string(key) + u32(value_type) + value


@dataclass
class Tensor:
    """A tensor info; `dimensions` in file order, the contiguous one first."""

    name: str | bytes = "weight"
    dimensions: Sequence[int] = (8,)
    ggml_type: int = 0
    offset: int = 0
    num_dimensions: int | None = None

    def encode(self) -> bytes:
        """The bytes of the info."""
        count = len(self.dimensions) if self.num_dimensions is None else self.num_dimensions
        return (
            string(self.name)
            + u32(count)
            + b"".join(map(u64, self.dimensions))
            + u32(self.ggml_type)
            + u64(self.offset)
        )


@dataclass
class File:
    """A whole file; counts and padding follow from the parts unless given."""

    pairs: Sequence[bytes] = ()
    tensors: Sequence[Tensor] = ()
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    num_pairs: int | None = None
    num_tensors: int | None = None
    alignment: int = 32
    tail: bytes = field(default=b"")

    def encode(self) -> bytes:
        """The bytes of the file."""
        front = (
            self.magic
            + u32(self.version)
            + u64(len(self.tensors) if self.num_tensors is None else self.num_tensors)
            + u64(len(self.pairs) if self.num_pairs is None else self.num_pairs)
            + b"".join(self.pairs)
            + b"".join(tensor.encode() for tensor in self.tensors)
        )
        padding = -len(front) % self.alignment if self.tensors else 0
        return front + bytes(padding) + self.data + self.tail
