"""The wire format of protocol buffers, by hand and on hostile bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.errors import ModelFormatError
from quintet.formats.protobuf import fields, float32, int32, message, text

PATH = "tokenizer.model"


def test_every_kind_of_field_is_read_in_order():
    """A varint, fixed sizes and bytes; -1 is ten bytes long."""
    data = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x02hi" + b"\x25" + struct.pack("<f", 1.5)
    data += b"\x28" + b"\xff" * 9 + b"\x01"
    found = list(fields(data, path=PATH))
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    assert int32(found[0][1], path=PATH) == 150
    assert message(found[1][1], path=PATH) == bytes(8)
    assert text(found[2][1], path=PATH) == "hi"
    assert float32(found[3][1], path=PATH) == 1.5
    assert int32(found[4][1], path=PATH) == -1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08", "64 bits"),
        (b"\x08" + b"\xff" * 11, "64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "64 bits"),
        (b"\x0a\x05abc", "expected 5 bytes of field 1, 3 are left"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "are left"),
        (b"\x0d\x00\x00", "expected 4 bytes"),
        (b"\x0b", "kind 3"),
        (b"\x02\x00", "a field's number"),
    ],
)
def test_a_broken_message_is_refused(data: bytes, message: str):
    """A length is checked before it is used; groups are unknown here."""
    with pytest.raises(ModelFormatError, match=message):
        list(fields(data, path=PATH))


def test_a_value_of_another_kind_is_refused():
    """A number where text is expected, and the other way round."""
    for read, value in (
        (text, 3),
        (text, b"\xff"),
        (float32, b"abc"),
        (int32, b"a"),
        (int32, 1 << 40),
    ):
        with pytest.raises(ModelFormatError):
            read(value, path=PATH)


@given(st.binary(max_size=60))
def test_no_bytes_do_harm(data: bytes):
    """Any bytes are read, or refused."""
    try:
        found = list(fields(data, path=PATH))
    except ModelFormatError:
        return
    assert sum(len(value) if isinstance(value, bytes) else 1 for _, value in found) <= len(data)
