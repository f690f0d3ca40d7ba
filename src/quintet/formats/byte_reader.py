"""A cursor over untrusted bytes that checks every length before it is used."""

from __future__ import annotations

import os
import struct

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")


class ByteReader:
    """
    Little-endian values out of a buffer, front to back.

    Args:
        data: [n] uint8.
        path: the file they are from, for errors.
        max_bytes: where reading stops even if the buffer goes on.

    Every read raises ModelFormatError, with the part being read and its byte offset, when it
    would pass the end.
    """

    def __init__(
        self, data: npt.NDArray[np.uint8], *, path: str | os.PathLike[str], max_bytes: int
    ) -> None:
        self.data = data
        self.path = path
        self.position = 0
        self.end = min(len(data), max_bytes)
        # Reading scalars from a memoryview costs a third of what it costs from an array.
        self.view = data.data

    @property
    def remaining(self) -> int:
        """Bytes between the position and the end."""
        return self.end - self.position

    def scalar(self, layout: struct.Struct, part: str) -> int | float:
        """The next value, as the one-field `layout` describes it."""
        self.require(layout.size, part)
        value: int | float = layout.unpack_from(self.view, self.position)[0]
        self.position += layout.size
        return value

    def u32(self, part: str) -> int:
        """The next unsigned 32-bit integer."""
        return int(self.scalar(U32, part))

    def u64(self, part: str) -> int:
        """The next unsigned 64-bit integer."""
        return int(self.scalar(U64, part))

    def count(self, part: str, *, item_bytes: int, max_count: int) -> int:
        """The next u64, a number of items of at least `item_bytes` bytes each that follow it."""
        start = self.position
        count = self.u64(part)
        if count > max_count:
            raise self.error(f"expected at most {max_count} items, found {count}", part, start)
        if count * item_bytes > self.remaining:
            raise self.error(
                f"{count} items of at least {item_bytes} bytes do not fit in the "
                f"{self.remaining} bytes left",
                part,
                start,
            )
        return count

    def take(self, num_bytes: int, part: str) -> npt.NDArray[np.uint8]:
        """The next `num_bytes` bytes, as a view."""
        self.require(num_bytes, part)
        start = self.position
        self.position += num_bytes
        return self.data[start : self.position]

    def string(self, part: str, *, max_bytes: int) -> str:
        """The next string: a u64 length in bytes, then UTF-8."""
        start = self.position
        num_bytes = self.u64(part)
        if num_bytes > max_bytes:
            raise self.error(
                f"expected a string of at most {max_bytes} bytes, found {num_bytes}", part, start
            )
        encoded = self.take(num_bytes, part).tobytes()
        try:
            return encoded.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(
                f"expected UTF-8, found byte {encoded[error.start]:#04x}",
                part,
                start + U64.size + error.start,
            ) from error

    def require(self, num_bytes: int, part: str) -> None:
        """Raise unless `num_bytes` more bytes are there."""
        if num_bytes <= self.remaining:
            return
        end = "end of the file" if self.end == len(self.data) else f"limit of {self.end} bytes"
        raise self.error(
            f"needs {num_bytes} bytes, the {end} is {self.remaining} bytes ahead", part
        )

    def error(self, message: str, part: str, offset: int | None = None) -> ModelFormatError:
        """A ModelFormatError that says where; at the position unless `offset` is given."""
        return ModelFormatError(
            message,
            path=self.path,
            part=part,
            offset=self.position if offset is None else offset,
        )
