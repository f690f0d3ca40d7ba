"""Protocol buffers, as far as reading a message takes: its fields, one after the other.

Source: the Protocol Buffers encoding guide, protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import TypeAlias

from quintet.errors import ModelFormatError

Value: TypeAlias = int | bytes  # a varint as it is (unsigned), anything else as bytes

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED = {_I64: 8, _I32: 4}
_MAX_VARINT_BYTES = 10
_MAX_NUMBER = 2**29 - 1


def fields(message: bytes, *, path: str | os.PathLike[str]) -> Iterator[tuple[int, Value]]:
    """
    The fields of a message in the order of the file: number and value.

    Args:
        message: all of it; a nested one is the value of a field.
        path: the file it is from, for errors.

    Raises:
        ModelFormatError: a field that ends behind the message, or of an unknown kind.
    """
    position, end = 0, len(message)
    while position < end:
        start = position
        tag, position = _varint(message, position, path)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= _MAX_NUMBER:
            raise _error(f"expected a field's number, found {number}", path, start)
        if kind == _VARINT:
            value, position = _varint(message, position, path)
            yield number, value
            continue
        if kind == _LEN:
            size, position = _varint(message, position, path)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise _error(f"expected a field of a known kind, found kind {kind}", path, start)
        if size > end - position:
            raise _error(
                f"expected {size} bytes of field {number}, {end - position} are left", path, start
            )
        yield number, message[position : position + size]
        position += size


def text(value: Value, *, path: str | os.PathLike[str]) -> str:
    """A field's value as a string.

    Raises:
        ModelFormatError: it is a number, or no UTF-8.
    """
    try:
        return _bytes(value, None, path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"expected UTF-8: {error.reason}", path=path) from None


def float32(value: Value, *, path: str | os.PathLike[str]) -> float:
    """A field's value as a float.

    Raises:
        ModelFormatError: it is of another kind.
    """
    found: float = struct.unpack("<f", _bytes(value, 4, path))[0]
    return found


def int32(value: Value, *, path: str | os.PathLike[str]) -> int:
    """A field's value as a signed number, an enumerator or a bool.

    Raises:
        ModelFormatError: it is of another kind, or does not fit.
    """
    if not isinstance(value, int):
        raise ModelFormatError("expected a number, found bytes", path=path)
    signed = value - (1 << 64) if value >= 1 << 63 else value
    if not -(1 << 31) <= signed < 1 << 31:
        raise ModelFormatError(f"expected a number of 32 bits, found {signed}", path=path)
    return signed


def message(value: Value, *, path: str | os.PathLike[str]) -> bytes:
    """A field's value as a nested message.

    Raises:
        ModelFormatError: it is a number.
    """
    return _bytes(value, None, path)


def _bytes(value: Value, size: int | None, path: str | os.PathLike[str]) -> bytes:
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        found = f"{len(value)} bytes" if isinstance(value, bytes) else "a number"
        raise ModelFormatError(f"expected {size or 'some'} bytes, found {found}", path=path)
    return value


def _varint(data: bytes, position: int, path: str | os.PathLike[str]) -> tuple[int, int]:
    """Seven bits to a byte, least significant first: the value, and where it ends."""
    value = 0
    for index, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, position + index + 1
    raise _error("expected a number of at most 64 bits", path, position)


def _error(message: str, path: str | os.PathLike[str], offset: int) -> ModelFormatError:
    return ModelFormatError(message, path=path, part="protocol buffer", offset=offset)
