"""Importance matrices as files."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from quintet.errors import ModelFormatError, ModelNotFoundError
from quintet.tools.imatrix_file import Importances, read_imatrix, write_imatrix


def test_the_gguf_format_round_trips_and_the_gguf_package_reads_it(tmp_path: Path):
    """Sums, counts and where they came from; an expert nobody chose has no importance."""
    path = tmp_path / "imatrix.gguf"
    sums = {
        "a.weight": np.array([[2, 4, 6]], np.float32),
        "experts.weight": np.array([[1, 1], [0, 0]], np.float32),
    }
    counts = {"a.weight": np.array([2], np.float32), "experts.weight": np.array([4, 0], np.float32)}
    write_imatrix(path, Importances(sums, counts, dataset="t.txt", num_chunks=3, chunk_size=512))
    found = read_imatrix(path)
    assert found.names == {"a.weight", "experts.weight"}
    assert found.of("a.weight").tolist() == [1, 2, 3]
    assert found.of("experts.weight", 0).tolist() == [0.25, 0.25]
    assert found.of("experts.weight", 1) is None
    assert found.of("other.weight") is None
    assert (found.dataset, found.num_chunks, found.chunk_size) == ("t.txt", 3, 512)
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.type").contents() == "imatrix"
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert shapes["experts.weight.in_sum2"] == [2, 2]
    assert shapes["experts.weight.counts"] == [1, 2]


def dat(*entries: tuple[str, int, list[float]], tail: bytes = b"") -> bytes:
    parts = [struct.pack("<i", len(entries))]
    for name, calls, values in entries:
        parts.append(struct.pack("<i", len(name)) + name.encode())
        parts.append(struct.pack(f"<ii{len(values)}f", calls, len(values), *values))
    return b"".join(parts) + tail


def test_the_older_format_is_read(tmp_path: Path):
    """Values are divided by the number of calls, and the data set's name is found."""
    path = tmp_path / "imatrix.dat"
    path.write_bytes(dat(("a.weight", 2, [2, 4]), tail=struct.pack("<ii", 7, 3) + b"wik"))
    found = read_imatrix(path)
    assert found.of("a.weight").tolist() == [1, 2]
    assert (found.dataset, found.num_chunks) == ("wik", 7)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<i", -1),
        struct.pack("<i", 0),
        struct.pack("<ii", 1, 1 << 30),
        dat(("a", 1, [1.0]))[:-1],
        dat(("a", 1, [float("nan")])),
        dat(("a", 1, [-1.0])),
        struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 2**31 - 1),
        b"GGUF",
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes):
    """Every size is checked before it is used, and values must be possible ones."""
    path = tmp_path / "imatrix.dat"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"imatrix\.dat"):
        read_imatrix(path)


def test_a_missing_file_is_named(tmp_path: Path):
    """No such file."""
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        read_imatrix(tmp_path / "nowhere.gguf")
