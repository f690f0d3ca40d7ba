"""safetensors files made to hurt: each is refused with the reason, or is a valid file.

Line ids (M1, M2, ...) are of flaws that other readers had.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.safetensors import SafetensorsDir

from .gguf_bytes import u64

F32_PAIR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def encode(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with this header, as an object or as bytes; its length may be a lie."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return u64(len(encoded) if length is None else length) + encoded + data


def refuse(folder: Path, content: bytes, message: str) -> ModelFormatError:
    """Assert that opening the file is refused, with a path, a part, an offset and the message."""
    path = folder / "hostile.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=message) as caught:
        SafetensorsDir.open(path)
    assert caught.value.path == str(path)
    assert caught.value.part is not None
    assert caught.value.offset is not None
    return caught.value


@pytest.mark.parametrize("length", [2**24 + 1, 2**32, 2**63, 2**64 - 1])
def test_header_longer_than_16_mib_refused(tmp_path: Path, length: int) -> None:
    """A length is believed only below the limit (M11)."""
    refuse(tmp_path, encode({}, length=length), f"at most 16777216 items, found {length}")


def test_header_past_end_refused(tmp_path: Path) -> None:
    """And only within the file (M1)."""
    refuse(tmp_path, encode({}, length=3), "do not fit in the 2 bytes left")
    refuse(tmp_path, b"\2\0\0\0\0\0\0", "needs 8 bytes")


@pytest.mark.parametrize("header", [b"", b" {}", b"[]", b'"x"', b"null", b"\0\0"])
def test_header_that_is_no_object_refused(tmp_path: Path, header: bytes) -> None:
    """A header begins with a brace; padding comes after it."""
    refuse(tmp_path, encode(header), "expected '{'")


@pytest.mark.parametrize("header", [b"{", b"{'a':1}", b"{}x", b"{} {}", b'{"a":NaN}', b"{\xff}"])
def test_header_that_is_not_json_refused(tmp_path: Path, header: bytes) -> None:
    """Nor may anything follow the object but spaces."""
    refuse(tmp_path, encode(header), "expected JSON|expected UTF-8|expected a number")


def test_json_bombs_refused(tmp_path: Path) -> None:
    """Neither depth nor breadth gets far (M10)."""
    refuse(tmp_path, encode(b'{"a":' + b"[" * 1_000_000), "nesting of at most 64")
    refuse(tmp_path, encode(b'{"a":[' + b"[]," * 2_000_000 + b"0]}"), "at most 1048576 values")
    refuse(tmp_path, encode(b'{"a":' + b"1" * 5_000_000 + b"}"), "at most 100 digits")


def test_duplicate_tensor_refused(tmp_path: Path) -> None:
    """Two entries for one name (M11)."""
    entry = json.dumps(F32_PAIR).encode()
    refuse(tmp_path, encode(b'{"a":' + entry + b',"a":' + entry + b"}", bytes(8)), "there twice")


def test_very_many_tensors_refused(tmp_path: Path) -> None:
    """More tensors than any model has."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = {f"{i}": entry for i in range(65_537)}
    refuse(tmp_path, encode(header), "at most 65536 tensors, found 65537")


@pytest.mark.parametrize("metadata", [7, [], "x", {"a": 1}, {"a": None}, {"a": {}}])
def test_metadata_that_is_not_strings_refused(tmp_path: Path, metadata: Any) -> None:
    """`__metadata__` maps strings to strings (M11)."""
    refuse(tmp_path, encode({"__metadata__": metadata}), "an object of strings")


@pytest.mark.parametrize("name", ["", "n" * 513, "a\0b"])
def test_impossible_tensor_name_refused(tmp_path: Path, name: str) -> None:
    """A tensor has a name, of bounded length, without a zero byte."""
    refuse(tmp_path, encode({name: F32_PAIR}, bytes(8)), "a name of 1 to 512 bytes")


@pytest.mark.parametrize(
    "entry",
    [
        7,
        [],
        {},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        {**F32_PAIR, "extra": 1},
    ],
)
def test_entry_with_other_fields_refused(tmp_path: Path, entry: Any) -> None:
    """An entry has its three fields."""
    refuse(tmp_path, encode({"a": entry}, bytes(8)), "dtype, shape and data_offsets")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "U16", "BOOL", "f32", "", "X" * 10_000])
def test_unsupported_dtype_refused_by_name(tmp_path: Path, dtype: str) -> None:
    """A dtype we cannot read is named, with those we can."""
    path = tmp_path / "dtype.safetensors"
    path.write_bytes(encode({"a": {**F32_PAIR, "dtype": dtype}}, bytes(8)))
    message = f"tensor 'a' in .* '{dtype[:40]}'; supported: BF16, F16, F32"
    with pytest.raises(UnsupportedModelError, match=message):
        SafetensorsDir.open(path)


@pytest.mark.parametrize("dtype", [0, None, ["F32"]])
def test_dtype_that_is_no_name_refused(tmp_path: Path, dtype: Any) -> None:
    """A dtype is a string."""
    refuse(tmp_path, encode({"a": {**F32_PAIR, "dtype": dtype}}, bytes(8)), "a dtype name")


@pytest.mark.parametrize("shape", [2, "2", {"0": 2}, [1] * 9, None])
def test_shape_that_is_no_list_refused(tmp_path: Path, shape: Any) -> None:
    """A shape is a list of at most eight."""
    refuse(tmp_path, encode({"a": {**F32_PAIR, "shape": shape}}, bytes(8)), "list of at most 8")


@pytest.mark.parametrize("size", [-2, 2.0, "2", True, None, [2], 2**63, 10**90])
def test_size_that_is_no_count_refused(tmp_path: Path, size: Any) -> None:
    """Sizes and offsets are whole numbers that fit 63 bits; true is not 1."""
    refuse(tmp_path, encode({"a": {**F32_PAIR, "shape": [size]}}, bytes(8)), "numbers below 2\\^63")
    entry = {**F32_PAIR, "data_offsets": [0, size]}
    refuse(tmp_path, encode({"a": entry}, bytes(8)), "numbers below 2\\^63 in data_offsets")


@pytest.mark.parametrize("shape", [[2**62], [2**32, 2**32], [2**31] * 3, [2**63 - 1] * 8])
def test_shape_that_overflows_refused(tmp_path: Path, shape: list[int]) -> None:
    """Products that wrap in 64 bits do not wrap here (M2, M3)."""
    refuse(tmp_path, encode({"a": {**F32_PAIR, "shape": shape}}, bytes(8)), "below 2\\^63")


@pytest.mark.parametrize("offsets", [[], [0], [0, 8, 8], [8, 0]])
def test_offsets_that_are_no_span_refused(tmp_path: Path, offsets: list[int]) -> None:
    """Data has a begin and an end, in this order."""
    entry = {**F32_PAIR, "data_offsets": offsets}
    refuse(tmp_path, encode({"a": entry}, bytes(8)), "data_offsets")


def test_size_that_is_not_shape_times_dtype_refused(tmp_path: Path) -> None:
    """Eight bytes are not three float32."""
    refuse(tmp_path, encode({"a": {**F32_PAIR, "shape": [3]}}, bytes(8)), "expected 12 bytes")


@pytest.mark.parametrize(
    ("spans", "num_bytes", "message"),
    [
        ([(4, 12)], 12, "leaves a hole"),
        ([(0, 8), (12, 20)], 20, "leaves a hole"),
        ([(0, 8), (4, 12)], 12, "overlaps"),
        ([(0, 8), (0, 8)], 8, "overlaps"),
        ([(0, 8)], 7, "end with the file"),
        ([(0, 8)], 9, "end with the file"),
        ([(0, 8), (2**40, 2**40 + 8)], 16, "leaves a hole"),
        ([], 1, "end with the file"),
    ],
)
def test_holes_overlaps_and_hidden_bytes_refused(
    tmp_path: Path, spans: list[tuple[int, int]], num_bytes: int, message: str
) -> None:
    """Tensors cover the data exactly: no polyglot files (M11), no reading past the end (M6)."""
    header = {f"{i}": {**F32_PAIR, "data_offsets": span} for i, span in enumerate(spans)}
    refuse(tmp_path, encode(header, bytes(num_bytes)), message)


# Every small change to a small file, judged by the safetensors package too.


def seed_file() -> bytes:
    """Some 800 bytes: metadata, three dtypes, an empty tensor, a scalar."""
    spans = {
        "model.embed_tokens.weight": ("F32", [4, 8]),
        "model.norm.weight": ("F16", [8]),
        "lm_head.weight": ("BF16", [2, 8]),
        "empty": ("F32", [0, 3]),
        "scalar": ("F32", []),
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in spans.items():
        size = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
        offsets = [position, position + size]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position += size
    return encode(header, np.random.default_rng(2).bytes(position))


SEED = seed_file()
DATA_START = 8 + int.from_bytes(SEED[:8], "little")


def count_valid(folder: Path, mutants: Iterator[bytes]) -> int:
    """How many mutants were valid; those must be to the safetensors package, with equal data."""
    path = folder / "mutant.safetensors"
    num_valid = 0
    for mutant in mutants:
        path.unlink(missing_ok=True)
        path.write_bytes(mutant)
        try:
            model = SafetensorsDir.open(path)
        except (ModelFormatError, UnsupportedModelError):
            continue
        num_valid += 1
        theirs = dict(safetensors.deserialize(mutant))
        assert set(theirs) == set(model.tensors)
        for name, info in model.tensors.items():
            assert info.shape == tuple(theirs[name]["shape"])
            assert model.raw(name).tobytes() == bytes(theirs[name]["data"])
    return num_valid


def test_the_seed_is_valid(tmp_path: Path) -> None:
    """The file that the mutants are made of opens, with spaces after its header too."""
    padded = encode(SEED[8:DATA_START] + b"   ", SEED[DATA_START:])
    assert count_valid(tmp_path, iter([SEED, padded])) == 2


def test_truncation_at_every_byte_refused(tmp_path: Path) -> None:
    """However a file is cut short, it is refused."""
    assert count_valid(tmp_path, (SEED[:size] for size in range(1, len(SEED)))) == 0


@pytest.mark.parametrize("byte", [0x00, 0x20, 0x22, 0x30, 0x7F, 0x80, 0xFF])
def test_every_header_byte_set_is_refused_or_valid(tmp_path: Path, byte: int) -> None:
    """What we accept with a byte changed, the safetensors package accepts and reads alike."""
    mutants = (
        SEED[:i] + bytes([byte]) + SEED[i + 1 :] for i in range(DATA_START) if SEED[i] != byte
    )
    assert count_valid(tmp_path, mutants) < DATA_START


def test_random_mutants_are_refused_or_valid(tmp_path: Path) -> None:
    """Characters that JSON is made of, at random places."""
    chance = random.Random(0)

    def mutants() -> Iterator[bytes]:
        for _ in range(2000):
            mutant = bytearray(SEED)
            for _ in range(chance.randint(1, 3)):
                mutant[chance.randrange(8, DATA_START)] = chance.choice(b'{}[],:"0123456789-.eE F')
            yield bytes(mutant)

    assert count_valid(tmp_path, mutants()) < 2000
