"""The GGUF writer: what it writes, read by the gguf package and by our own reader."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_metadata import ValueType
from quintet.formats.gguf_writer import Field, GGUFWriter, file_size, tensor_info

FIELDS = {
    "general.architecture": Field.of("llama"),
    "a.bool": Field.of(True),
    "a.count": Field.of(7),
    "a.float": Field.of(0.5),
    "an.int64": Field(ValueType.INT64, -(2**40)),
    "some.strings": Field.of(["é", "", "\udcff"]),  # the last is the byte 0xff
    "some.floats": Field.of(np.array([1.5, -2], np.float32)),
    "some.bools": Field.of(np.array([True, False])),
    "nested": Field.of((np.array([1, 2], np.int32), np.array([], np.int32))),
}
INFOS = [
    tensor_info("a", (3, 5), GGMLType.F32),  # 60 bytes: needs padding
    tensor_info("empty", (0, 4), GGMLType.F32),
    tensor_info("b", (2, 32), GGMLType.Q8_0),
]


def write(path: Path, fields: dict[str, Field] | None = None) -> dict[str, np.ndarray]:
    data = {
        info.name: np.arange(info.num_bytes, dtype=np.uint8) for info in INFOS if info.num_bytes
    }
    with GGUFWriter(path, FIELDS if fields is None else fields, INFOS) as writer:
        writer.write("a", data["a"][:20])
        writer.write("a", data["a"][20:])
        writer.write("b", data["b"])
    return data


def test_the_gguf_package_reads_what_is_written(tmp_path: Path):
    """Names, shapes, types, bytes and values of every kind arrive."""
    data = write(tmp_path / "m.gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert [t.name for t in reader.tensors] == ["a", "empty", "b"]
    assert [t.tensor_type.name for t in reader.tensors] == ["F32", "F32", "Q8_0"]
    assert reader.tensors[0].shape.tolist() == [5, 3]
    for tensor in (reader.tensors[0], reader.tensors[2]):
        assert tensor.data.reshape(-1).view(np.uint8).tolist() == data[tensor.name].tolist()
    assert reader.get_field("general.architecture").contents() == "llama"
    assert reader.get_field("a.bool").contents() is True
    assert reader.get_field("a.count").contents() == 7
    assert reader.get_field("an.int64").contents() == -(2**40)
    assert reader.get_field("some.floats").contents() == [1.5, -2]


def test_our_reader_gives_back_what_was_written(tmp_path: Path):
    """Reading and writing again gives the same bytes: nothing is lost on the way."""
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    data = write(first)
    with GGUFFile.open(first) as file:
        assert list(file.metadata["some.strings"]) == ["é", "", "\udcff"]
        copied = {key: Field(file.value_types[key], value) for key, value in file.metadata.items()}
        for name, expected in data.items():
            assert file.raw(name).tolist() == expected.tolist()
    write(second, copied)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size == file_size(FIELDS, INFOS)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path):
    """An exception on the way keeps the old file and leaves no other."""
    path = tmp_path / "m.gguf"
    path.write_text("old")
    with pytest.raises(ValueError, match="too many"), GGUFWriter(path, FIELDS, INFOS) as writer:
        writer.write("a", np.zeros(61, np.uint8))
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_that_lacks_bytes_is_not_put_in_place(tmp_path: Path):
    """Forgetting a tensor, writing too much of one, or the wrong one is an error."""
    path = tmp_path / "m.gguf"
    with pytest.raises(ValueError, match="'b' are missing"), GGUFWriter(path, {}, INFOS) as writer:
        writer.write("a", np.zeros(60, np.uint8))
    with pytest.raises(ValueError, match="1 bytes too many"), GGUFWriter(path, {}, INFOS) as writer:
        writer.write("a", np.zeros(61, np.uint8))
    with pytest.raises(ValueError, match="not the turn"), GGUFWriter(path, {}, INFOS) as writer:
        writer.write("b", np.zeros(68, np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_value_must_fit_its_type(tmp_path: Path):
    """A negative count or an object is refused by its key."""
    for field in (Field(ValueType.UINT32, -1), Field.of({"a": 1}), Field(ValueType.STRING, 5)):
        with pytest.raises((ValueError, AttributeError)):
            GGUFWriter(tmp_path / "m.gguf", {"the.key": field}, [])
    assert not list(tmp_path.iterdir())


def test_alignment_is_obeyed(tmp_path: Path):
    """A file with its own alignment keeps it."""
    path = tmp_path / "m.gguf"
    write(path, {"general.alignment": Field.of(64)})
    with GGUFFile.open(path) as file:
        assert file.alignment == 64
    assert gguf.GGUFReader(path).alignment == 64
