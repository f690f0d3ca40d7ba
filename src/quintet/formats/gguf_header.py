"""The front of one GGUF file: magic, version, metadata, tensor table; checked against the file.

    "GGUF" | version u32 | tensor count u64 | pair count u64 | pairs | tensor infos | padding | data

Everything is little-endian.  Sizes and offsets are compared with the file's size before they
are used, so what `read_header` returns can be trusted to lie inside the file.

Source: docs/gguf.md of ggml-org/ggml; where that leaves a choice, ggml/src/gguf.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from quintet.errors import UnsupportedModelError
from quintet.formats.byte_reader import ByteReader
from quintet.formats.ggml_types import DEQUANTIZABLE, GGMLType
from quintet.formats.gguf_metadata import ValueType, read_count, read_metadata
from quintet.formats.mapped_file import ModelFile
from quintet.formats.weights import TensorEntry, TensorInfo

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 64 * 1024
MAX_HEADER_BYTES = 64 * 2**20
MAX_TENSORS = 65_536
MAX_TENSOR_NAME_BYTES = 64  # the specification's, like the next
MAX_DIMENSIONS = 4

_ALIGNMENT_KEY = "general.alignment"
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8  # name of one byte, no dimensions, type, offset


@dataclass(frozen=True)
class Header:
    """
    What the front of a file says.

    Attributes:
        alignment: of tensor data, in bytes.
        metadata: values by key; `gguf_metadata` says which Python types they have.
        value_types: the types of the values as the file has them, by key.
        entries: tensors by name, in file order.
    """

    version: int
    alignment: int
    metadata: Mapping[str, Any]
    value_types: Mapping[str, ValueType]
    entries: Mapping[str, TensorEntry]


def read_header(file: ModelFile) -> Header:
    """
    Read and check everything before the tensor data.

    Raises:
        ModelFormatError: the file breaks the format.
        UnsupportedModelError: a tensor in a number format without a known size.
    """
    # One byte more than may be read: a header that ends there is too long, not cut off.
    head = file.head(MAX_HEADER_BYTES + 1)
    reader = ByteReader(head, path=file.path, max_bytes=MAX_HEADER_BYTES)
    version = _read_version(reader)
    num_tensors = reader.count("tensor count", item_bytes=_MIN_TENSOR_BYTES, max_count=MAX_TENSORS)
    metadata, value_types = read_metadata(reader, read_count(reader))
    alignment = _alignment(reader, metadata, value_types)
    entries = _read_tensor_table(reader, num_tensors, alignment, file.size)
    return Header(
        version,
        alignment,
        MappingProxyType(metadata),
        MappingProxyType(value_types),
        MappingProxyType(entries),
    )


def _read_version(reader: ByteReader) -> int:
    magic = reader.take(len(MAGIC), "magic").tobytes()
    if magic != MAGIC:
        raise reader.error(f"expected {MAGIC!r}, found {magic!r}", "magic", 0)
    version = reader.u32("version")
    if version in VERSIONS:
        return version
    if version & 0xFFFF == 0 and version:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        message = f"expected little-endian, found a big-endian file (version {swapped})"
    else:
        message = f"expected version 2 or 3, found version {version}"
    raise reader.error(message, "version", len(MAGIC))


def _alignment(
    reader: ByteReader, metadata: dict[str, Any], value_types: dict[str, ValueType]
) -> int:
    part = f"metadata {_ALIGNMENT_KEY!r}"
    if _ALIGNMENT_KEY not in metadata:
        return DEFAULT_ALIGNMENT
    if value_types[_ALIGNMENT_KEY] != ValueType.UINT32:
        found = value_types[_ALIGNMENT_KEY].name
        raise reader.error(f"expected type UINT32, found {found}", part)
    alignment = int(metadata[_ALIGNMENT_KEY])
    # The specification wants a multiple of 8, llama.cpp a power of two: files satisfy both.
    if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise reader.error(
            f"expected a power of two from 8 to {MAX_ALIGNMENT}, found {alignment}", part
        )
    return alignment


def _read_tensor_table(
    reader: ByteReader, count: int, alignment: int, file_size: int
) -> dict[str, TensorEntry]:
    rows: dict[str, tuple[TensorInfo, int, int]] = {}
    for index in range(count):
        start = reader.position
        info, relative_offset = _read_tensor_info(reader, index)
        if info.name in rows:
            raise reader.error("the name is there twice", f"tensor {info.name!r}", start)
        rows[info.name] = (info, relative_offset, start)
    data_start = -(-reader.position // alignment) * alignment
    entries: dict[str, TensorEntry] = {}
    for info, relative_offset, start in rows.values():
        part = f"tensor {info.name!r}"
        if relative_offset % alignment:
            raise reader.error(
                f"expected an offset that is a multiple of {alignment}, found {relative_offset}",
                part,
                start,
            )
        offset = data_start + relative_offset
        if offset + info.num_bytes > file_size:
            raise reader.error(
                f"its {info.num_bytes} bytes at byte {offset} pass the end of the file "
                f"at byte {file_size}",
                part,
                start,
            )
        entries[info.name] = TensorEntry(info, offset)
    _refuse_overlaps(reader, entries)
    return entries


def _read_tensor_info(reader: ByteReader, index: int) -> tuple[TensorInfo, int]:
    """The next tensor info and its offset from the start of the tensor data."""
    start = reader.position
    name = reader.string(f"tensor name {index}", max_bytes=MAX_TENSOR_NAME_BYTES)
    if not name or "\0" in name:
        raise reader.error(f"expected a name, found {name!r}", f"tensor name {index}", start)
    part = f"tensor {name!r}"
    num_dimensions = reader.u32(part)
    if num_dimensions > MAX_DIMENSIONS:
        raise reader.error(
            f"expected at most {MAX_DIMENSIONS} dimensions, found {num_dimensions}", part, start
        )
    # The file has the contiguous dimension first, NumPy has it last.
    shape = tuple(reader.u64(part) for _ in range(num_dimensions))[::-1]
    number = reader.u32(part)
    try:
        ggml_type = GGMLType(number)
    except ValueError as error:
        raise UnsupportedModelError(
            f"number format of tensor {name!r} in {reader.path}",
            f"id {number}",
            (known.name for known in DEQUANTIZABLE),
        ) from error
    try:
        num_bytes = ggml_type.num_bytes(shape)
    except ValueError as error:
        raise reader.error(str(error), part, start) from error
    return TensorInfo(name, shape, ggml_type, num_bytes), reader.u64(part)


def _refuse_overlaps(reader: ByteReader, entries: dict[str, TensorEntry]) -> None:
    previous: TensorEntry | None = None
    for entry in sorted(entries.values(), key=lambda e: (e.offset, e.info.num_bytes)):
        if previous is not None and entry.offset < previous.offset + previous.info.num_bytes:
            raise reader.error(
                f"its data starts inside tensor {previous.info.name!r}",
                f"tensor {entry.info.name!r}",
                entry.offset,
            )
        previous = entry
