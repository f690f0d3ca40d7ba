"""GGUF metadata: a list of typed key-value pairs.

What a value becomes in Python:

    UINT8 ... INT64         int
    FLOAT32, FLOAT64        float
    BOOL                    bool; only the bytes 0 and 1 are one
    STRING                  str; must be UTF-8
    ARRAY of numbers, BOOL  read-only NumPy array of that type
    ARRAY of STRING         StringArray, decoded when asked for
    ARRAY of ARRAY          tuple of the above

Values are copies: they outlive the file.

Source: `gguf_metadata_value_t` in docs/gguf.md of ggml-org/ggml.
"""

from __future__ import annotations

import enum
import struct
from typing import Any

import numpy as np

from quintet.formats.byte_reader import ByteReader
from quintet.formats.string_array import read_string_array

MAX_KEYS = 65_536
MAX_KEY_BYTES = 65_535  # the specification's
MAX_STRING_BYTES = 16 * 2**20  # chat templates are the longest there are, some 100 KB
MAX_ARRAY_STRING_BYTES = 64 * 1024  # tokens and merges
MAX_ARRAY_DEPTH = 4
# Every nested array is a Python object, some ten times its 12 bytes in the file.
MAX_NESTED_ARRAYS = 65_536

_MIN_PAIR_BYTES = 8 + 1 + 4 + 1  # length and one byte of key, type, one byte of value


class ValueType(enum.IntEnum):
    """The type of a metadata value, with its id in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_SCALARS = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}

_ITEMS = {value_type: np.dtype(layout.format) for value_type, layout in _SCALARS.items()}


def read_metadata(reader: ByteReader, count: int) -> tuple[dict[str, Any], dict[str, ValueType]]:
    """
    The next `count` pairs: values by key, and the types of the values by key.

    Raises:
        ModelFormatError: anything the format forbids, including a key that is there twice.
    """
    values: dict[str, Any] = {}
    types: dict[str, ValueType] = {}
    budget = _Budget()
    for index in range(count):
        start = reader.position
        key = reader.string(f"metadata key {index}", max_bytes=MAX_KEY_BYTES)
        # A zero byte would end the key for readers that use C strings.
        if not key or "\0" in key:
            raise reader.error(f"expected a key, found {key!r:.80}", f"metadata key {index}", start)
        if key in values:
            raise reader.error("the key is there twice", f"metadata {key!r:.80}", start)
        part = f"metadata {key!r:.80}"
        types[key] = _read_type(reader, part)
        values[key] = _read_value(reader, types[key], part, budget)
    return values, types


def read_count(reader: ByteReader) -> int:
    """The number of pairs, checked against the bytes left."""
    return reader.count("metadata count", item_bytes=_MIN_PAIR_BYTES, max_count=MAX_KEYS)


class _Budget:
    """Nested arrays that a file may still contain."""

    def __init__(self) -> None:
        self.nested_arrays = MAX_NESTED_ARRAYS


def _read_type(reader: ByteReader, part: str) -> ValueType:
    start = reader.position
    number = reader.u32(part)
    try:
        return ValueType(number)
    except ValueError as error:
        raise reader.error(
            f"expected a value type of 0 to 12, found {number}", part, start
        ) from error


def _read_value(reader: ByteReader, value_type: ValueType, part: str, budget: _Budget) -> Any:
    if value_type == ValueType.STRING:
        return reader.string(part, max_bytes=MAX_STRING_BYTES)
    if value_type == ValueType.ARRAY:
        return _read_array(reader, part, budget, depth=1)
    if value_type == ValueType.BOOL:
        start = reader.position
        byte = int(reader.take(1, part)[0])
        if byte > 1:
            raise reader.error(f"expected a bool of 0 or 1, found {byte}", part, start)
        return byte == 1
    return reader.scalar(_SCALARS[value_type], part)


def _read_array(reader: ByteReader, part: str, budget: _Budget, *, depth: int) -> Any:
    item_type = _read_type(reader, part)
    if item_type == ValueType.ARRAY:
        if depth == MAX_ARRAY_DEPTH:
            raise reader.error(f"expected arrays nested at most {MAX_ARRAY_DEPTH} deep", part)
        count = reader.count(part, item_bytes=4 + 8, max_count=budget.nested_arrays)
        budget.nested_arrays -= count
        return tuple(_read_array(reader, part, budget, depth=depth + 1) for _ in range(count))
    if item_type == ValueType.STRING:
        count = reader.count(part, item_bytes=8, max_count=reader.end)
        return read_string_array(reader, count, part, max_string_bytes=MAX_ARRAY_STRING_BYTES)
    return _read_numbers(reader, item_type, part)


def _read_numbers(reader: ByteReader, item_type: ValueType, part: str) -> Any:
    layout = _ITEMS.get(item_type, np.dtype(np.uint8))  # BOOL is a byte
    count = reader.count(part, item_bytes=layout.itemsize, max_count=reader.end)
    start = reader.position
    items = reader.take(count * layout.itemsize, part).copy().view(layout)
    if item_type == ValueType.BOOL:
        wrong = np.flatnonzero(items > 1)
        if len(wrong):
            raise reader.error(
                f"expected bools of 0 or 1, found {items[wrong[0]]}", part, start + int(wrong[0])
            )
        items = items.view(np.bool_)
    items.flags.writeable = False
    return items
