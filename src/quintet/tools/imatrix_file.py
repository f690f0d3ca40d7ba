"""Importance matrices as files: how much each column of each matrix matters.

An importance is the mean of the squared inputs that a column met on some text, since a weight's
rounding error reaches the output multiplied by its input.

Two formats: llama.cpp's GGUF (written here, and read), for each matrix `NAME.in_sum2`, the sums
of squares [num_matrices, row_size], and `NAME.counts` [num_matrices, 1], how many inputs; and its
older .dat (read), a count of entries, each a name, a number of calls, a number of values and the
values times that number of calls.

Source: tools/imatrix/imatrix.cpp and tools/quantize/quantize.cpp of ggml-org/llama.cpp.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError, ModelNotFoundError
from quintet.formats.byte_reader import ByteReader
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_writer import Field, GGUFWriter, tensor_info

_SUMS, _COUNTS = ".in_sum2", ".counts"
_I32 = struct.Struct("<i")
_MAX_ENTRIES = 1 << 20
_MAX_NAME_BYTES = 1024
_MAX_FILE_BYTES = 1 << 32


@dataclass(frozen=True)
class Importances:
    """
    An importance matrix.

    Args:
        sums: [num_matrices, row_size] float32 by tensor name: squared inputs, summed.
        counts: [num_matrices] float32 by tensor name: over how many inputs.
        file: where it was read from.
        dataset: the text it was measured on.
        num_chunks, chunk_size: how the text was cut, in chunks and tokens.
    """

    sums: Mapping[str, npt.NDArray[np.float32]]
    counts: Mapping[str, npt.NDArray[np.float32]]
    file: str = ""
    dataset: str = ""
    num_chunks: int = 0
    chunk_size: int = 0

    @property
    def names(self) -> frozenset[str]:
        """The tensors it knows."""
        return frozenset(self.sums)

    def shape(self, name: str) -> tuple[int, int]:
        """(num_matrices, row_size) of a tensor."""
        num_matrices, row_size = self.sums[name].shape
        return num_matrices, row_size

    def of(self, name: str, matrix: int = 0) -> npt.NDArray[np.float32] | None:
        """
        [row_size] mean squared inputs of one matrix; None where they are not known, as of an
        expert that the text never chose.
        """
        if name not in self.sums or self.counts[name][matrix] <= 0:
            return None
        mean = self.sums[name][matrix] / self.counts[name][matrix]
        return mean if mean.any() else None


def read_imatrix(path: str | os.PathLike[str]) -> Importances:
    """
    An importance matrix file.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: neither format, or values that are negative or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFoundError(f"no such file: {path}")
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    result = _read_gguf(path) if is_gguf else _read_dat(path)
    for name in result.names:
        for values in (result.sums[name], result.counts[name]):
            if not np.isfinite(values).all() or (values < 0).any():
                raise ModelFormatError(
                    "expected finite values of at least 0", path=path, part=f"tensor {name!r}"
                )
    return result


def write_imatrix(path: str | os.PathLike[str], importances: Importances) -> None:
    """Write the GGUF format; whole or not at all."""
    fields = {
        "general.type": Field.of("imatrix"),
        "imatrix.datasets": Field.of([importances.dataset]),
        "imatrix.chunk_count": Field.of(importances.num_chunks),
        "imatrix.chunk_size": Field.of(importances.chunk_size),
    }
    data: dict[str, npt.NDArray[np.float32]] = {}
    for name in sorted(importances.names):
        data[name + _SUMS] = importances.sums[name]
        data[name + _COUNTS] = importances.counts[name].reshape(-1, 1)
    infos = [tensor_info(name, values.shape, GGMLType.F32) for name, values in data.items()]
    with GGUFWriter(path, fields, infos) as writer:
        for name, values in data.items():
            writer.write(name, np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8))


def _read_gguf(path: Path) -> Importances:
    with GGUFFile.open(path) as file:
        sums, counts = {}, {}
        for full in file.tensors:
            if not full.endswith(_SUMS):
                continue
            name = full.removesuffix(_SUMS)
            values = file.dequantized(full)
            if name + _COUNTS not in file.tensors:
                raise ModelFormatError(
                    "the tensor is missing", path=path, part=f"tensor {name + _COUNTS!r}"
                )
            number = file.dequantized(name + _COUNTS).reshape(-1)
            matrices = values.reshape(-1, values.shape[-1]) if values.ndim else values
            if matrices.ndim != 2 or len(matrices) != len(number):
                raise ModelFormatError(
                    f"expected {number.size} matrices, found shape {values.shape}",
                    path=path,
                    part=f"tensor {full!r}",
                )
            sums[name], counts[name] = matrices, number
        if not sums:
            raise ModelFormatError(f"expected tensors {'*' + _SUMS!r}, found none", path=path)
        datasets = file.metadata.get("imatrix.datasets", ())
        return Importances(
            sums,
            counts,
            str(path),
            str(datasets[0]) if len(datasets) else "",
            int(file.metadata.get("imatrix.chunk_count", 0)),
            int(file.metadata.get("imatrix.chunk_size", 0)),
        )


def _read_dat(path: Path) -> Importances:
    data = np.fromfile(path, np.uint8)
    reader = ByteReader(data, path=path, max_bytes=_MAX_FILE_BYTES)

    def number(part: str, maximum: int) -> int:
        start = reader.position
        value = int(reader.scalar(_I32, part))
        if not 0 <= value <= maximum:
            raise reader.error(f"expected 0 to {maximum}, found {value}", part, start)
        return value

    sums, counts = {}, {}
    for index in range(number("number of entries", _MAX_ENTRIES)):
        part = f"entry {index}"
        name = reader.take(number(part, _MAX_NAME_BYTES), part).tobytes().decode("utf-8", "replace")
        num_calls = number(part, 2**31 - 1)
        num_values = number(part, len(data) // 4)
        values = reader.take(4 * num_values, part).copy().view("<f4").reshape(1, -1)
        sums[name] = values
        counts[name] = np.array([max(num_calls, 1)], np.float32)
    if not sums:
        raise ModelFormatError("expected at least one entry, found none", path=path)
    num_chunks, dataset = 0, ""
    if reader.position < reader.end:  # later versions say what they were measured on
        num_chunks = number("number of chunks", 2**31 - 1)
        length = number("data set", _MAX_NAME_BYTES)
        dataset = reader.take(length, "data set").tobytes().decode("utf-8", "replace")
    return Importances(sums, counts, str(path), dataset, num_chunks)
