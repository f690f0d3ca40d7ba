"""The front of one safetensors file, checked against the file.

    header length u64 | header, a JSON object | data

The header maps a tensor's name to its dtype, shape and [begin, end) in the data.  Tensors fill
the data from its start to the end of the file without holes or overlaps, so no bytes can hide.

Source: the format section of the README of huggingface/safetensors, and `validate` in
safetensors/src/tensor.rs.
"""

from __future__ import annotations

from typing import Any

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats import strict_json
from quintet.formats.byte_reader import U64, ByteReader
from quintet.formats.ggml_types import MAX_TENSOR_EXTENT, GGMLType
from quintet.formats.mapped_file import ModelFile
from quintet.formats.weights import TensorEntry, TensorInfo

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 65_536
MAX_NAME_BYTES = 512
MAX_DIMENSIONS = 8

# The values of the integer types cannot be read, but checkpoints carry a few such buffers.
_TYPES = {
    "F32": GGMLType.F32,
    "F16": GGMLType.F16,
    "BF16": GGMLType.BF16,
    "F64": GGMLType.F64,
    "I8": GGMLType.I8,
    "U8": GGMLType.I8,  # as bytes: packed codes, that who knows them reads raw
    "I16": GGMLType.I16,
    "I32": GGMLType.I32,
    "I64": GGMLType.I64,
}
_READABLE = ("F32", "F16", "BF16")


def read_header(file: ModelFile) -> dict[str, TensorEntry]:
    """
    The tensors of a file by name, in the order of their data.

    Raises:
        ModelFormatError: the file breaks the format.
        UnsupportedModelError: a tensor with a dtype we have no number format for.
    """
    head = file.head(U64.size + MAX_HEADER_BYTES)
    reader = ByteReader(head, path=file.path, max_bytes=file.size)
    header_bytes = reader.count("header length", item_bytes=1, max_count=MAX_HEADER_BYTES)
    encoded = reader.take(header_bytes, "header").tobytes()
    if encoded[:1] != b"{":
        raise reader.error(f"expected '{{', found {encoded[:1]!r}", "header", U64.size)
    header = strict_json.loads(encoded, path=file.path, part="header", offset=U64.size)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _error(file, "__metadata__", "expected an object of strings")
    if len(header) > MAX_TENSORS:
        raise _error(file, "header", f"expected at most {MAX_TENSORS} tensors, found {len(header)}")
    spans = [_read_entry(file, name, entry) for name, entry in header.items()]
    return _lay_out(file, spans, data_start=reader.position)


def _read_entry(file: ModelFile, name: str, entry: Any) -> tuple[int, int, TensorInfo]:
    """One header entry: begin and end of its data, and what it is."""
    part = f"tensor {name!r}"
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES or "\0" in name:
        raise _error(file, part[:80], f"expected a name of 1 to {MAX_NAME_BYTES} bytes")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _error(file, part, "expected an object of dtype, shape and data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str):
        raise _error(file, part, f"expected a dtype name, found {str(dtype)[:40]}")
    ggml_type = _TYPES.get(dtype)
    if ggml_type is None:
        raise UnsupportedModelError(f"dtype of {part} in {file.path}", dtype[:40], _READABLE)
    shape = _sizes(file, part, "shape", entry["shape"], max_len=MAX_DIMENSIONS)
    offsets = _sizes(file, part, "data_offsets", entry["data_offsets"], max_len=2)
    if len(offsets) != 2 or offsets[1] < offsets[0]:
        raise _error(file, part, f"expected data_offsets [begin, end], found {list(offsets)}")
    try:
        num_bytes = ggml_type.num_bytes(shape)
    except ValueError as error:
        raise _error(file, part, str(error)) from error
    begin, end = offsets
    if end - begin != num_bytes:
        raise _error(
            file, part, f"expected {num_bytes} bytes for {dtype} of {shape}, found {end - begin}"
        )
    return begin, end, TensorInfo(name, shape, ggml_type, num_bytes)


def _sizes(file: ModelFile, part: str, field: str, value: Any, *, max_len: int) -> tuple[int, ...]:
    """A list of at most `max_len` sizes."""
    if not isinstance(value, list) or len(value) > max_len:
        raise _error(file, part, f"expected {field} to be a list of at most {max_len}")
    for size in value:
        if type(size) is not int or not 0 <= size <= MAX_TENSOR_EXTENT:
            raise _error(
                file, part, f"expected whole numbers below 2^63 in {field}, found {str(size)[:40]}"
            )
    return tuple(value)


def _lay_out(
    file: ModelFile, spans: list[tuple[int, int, TensorInfo]], *, data_start: int
) -> dict[str, TensorEntry]:
    entries: dict[str, TensorEntry] = {}
    position = 0
    for begin, end, info in sorted(spans, key=lambda span: span[:2]):
        if begin != position:
            problem = "overlaps the tensor before it" if begin < position else "leaves a hole"
            raise ModelFormatError(
                f"its data starts at {begin} of the data section, which {problem}; "
                f"expected {position}",
                path=file.path,
                part=f"tensor {info.name!r}",
                offset=data_start + begin,
            )
        entries[info.name] = TensorEntry(info, data_start + begin)
        position = end
    if data_start + position != file.size:
        raise ModelFormatError(
            f"expected the tensors to end with the file at byte {file.size}, "
            f"found them to end at {data_start + position}",
            path=file.path,
            part="data",
            offset=data_start + position,
        )
    return entries


def _error(file: ModelFile, part: str, message: str) -> ModelFormatError:
    return ModelFormatError(message, path=file.path, part=part, offset=U64.size)
