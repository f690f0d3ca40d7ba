"""GGUF files made to hurt: each is refused with the reason, or is a valid file.

Line ids (M1, M2, ...) and CVE numbers are of flaws that other readers had.
"""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_metadata import MAX_STRING_BYTES, ValueType

from .gguf_bytes import File, Tensor, array, pair, scalar, string, u32, u64

HUGE = (2**31, 2**32 + 1, 2**61, 2**63 - 1, 2**63, 2**64 - 1)


def refuse(
    folder: Path, content: File | bytes, message: str, *, part: str | None = None
) -> ModelFormatError:
    """Assert that opening the file is refused, with a path, a part, an offset and the message."""
    path = folder / "hostile.gguf"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelFormatError, match=message) as caught:
        GGUFFile.open(path)
    error = caught.value
    assert error.path == str(path)
    assert error.part is not None
    assert error.offset is not None
    assert 0 <= error.offset <= path.stat().st_size
    if part is not None:
        assert error.part == part
    return error


# Magic and version.


def test_empty_file_refused(tmp_path: Path) -> None:
    """A file of no bytes cannot be mapped, and is no model."""
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelFormatError, match="found no bytes"):
        GGUFFile.open(tmp_path / "empty.gguf")


def test_fifo_refused_without_waiting(tmp_path: Path) -> None:
    """A named pipe nobody writes to does not hang the reader."""
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(Exception, match="not a regular file"):
        GGUFFile.open(tmp_path / "pipe.gguf")


@pytest.mark.parametrize("magic", [b"GGML", b"ggjt", b"PK\3\4", b"\0\0\0\0", b"FUGG"])
def test_wrong_magic_refused(tmp_path: Path, magic: bytes) -> None:
    """Other formats, old and new, are told from GGUF by four bytes."""
    error = refuse(tmp_path, File(magic=magic), "expected b'GGUF'", part="magic")
    assert error.offset == 0


@pytest.mark.parametrize("version", [0, 1, 4, 2**32 - 1])
def test_wrong_version_refused(tmp_path: Path, version: int) -> None:
    """Version 1 had other field sizes, and later ones may have."""
    message = f"expected version 2 or 3, found version {version}"
    assert refuse(tmp_path, File(version=version), message, part="version").offset == 4


@pytest.mark.parametrize("version", [2, 3])
def test_big_endian_refused(tmp_path: Path, version: int) -> None:
    """A big-endian file is called one, not a corrupt one."""
    content = b"GGUF" + struct.pack(">IQQ", version, 0, 0)
    refuse(tmp_path, content, rf"big-endian file \(version {version}\)", part="version")


# Counts.


@pytest.mark.parametrize("count", HUGE)
def test_tensor_count_beyond_file_refused(tmp_path: Path, count: int) -> None:
    """A count is compared with the bytes left before it is believed (M1)."""
    refuse(tmp_path, File(num_tensors=count), "at most 65536 items", part="tensor count")


@pytest.mark.parametrize("count", HUGE)
def test_metadata_count_beyond_file_refused(tmp_path: Path, count: int) -> None:
    """The same for pairs (M1)."""
    refuse(tmp_path, File(num_pairs=count), "at most 65536 items", part="metadata count")


def test_counts_that_do_not_fit_refused(tmp_path: Path) -> None:
    """A modest count is still too much for a short file."""
    refuse(tmp_path, File(num_tensors=1000), "do not fit in the 8 bytes left", part="tensor count")
    refuse(tmp_path, File(num_pairs=10), "do not fit in the 0 bytes left", part="metadata count")


def test_fewer_pairs_than_counted_refused(tmp_path: Path) -> None:
    """Reading runs into the end of the file, not past it."""
    only = pair("k", ValueType.STRING, string("v" * 50))
    refuse(tmp_path, File([only], num_pairs=2), "needs 8 bytes, the end of the file is 0 bytes")


# Keys and strings.


@pytest.mark.parametrize("length", HUGE)
def test_key_length_beyond_file_refused(tmp_path: Path, length: int) -> None:
    """A key of exabytes is refused by its length (M1)."""
    content = File([string("k", length=length) + bytes(40)])
    refuse(tmp_path, content, "at most 65535 bytes", part="metadata key 0")


@pytest.mark.parametrize("length", HUGE)
def test_string_length_beyond_file_refused(tmp_path: Path, length: int) -> None:
    """A string value likewise (M1, M10)."""
    content = File([pair("k", ValueType.STRING, string("v", length=length))])
    refuse(tmp_path, content, f"at most {MAX_STRING_BYTES} bytes, found {length}")


def test_string_past_end_refused(tmp_path: Path) -> None:
    """A length within the limit but not within the file is no better."""
    content = File([pair("k", ValueType.STRING, string("v" * 9, length=10))])
    refuse(tmp_path, content, "needs 10 bytes, the end of the file is 9 bytes", part="metadata 'k'")


@pytest.mark.parametrize("key", [b"", b"a\0b"])
def test_key_that_is_no_name_refused(tmp_path: Path, key: bytes) -> None:
    """An empty key, or one that ends early for readers in C, is no key (M9)."""
    refuse(tmp_path, File([pair(key, ValueType.UINT32, bytes(4))]), "expected a key")


def test_key_longer_than_65535_bytes_refused(tmp_path: Path) -> None:
    """The specification's limit."""
    refuse(tmp_path, File([pair("k" * 65_536, ValueType.UINT8, b"\1")]), "at most 65535 bytes")


def test_key_and_string_that_are_not_utf8_refused(tmp_path: Path) -> None:
    """Keys, names and single strings are UTF-8; the byte that is not is named."""
    error = refuse(tmp_path, File([pair(b"ab\xff", ValueType.UINT8, b"\1")]), "found byte 0xff")
    assert error.offset == 24 + 8 + 2
    refuse(tmp_path, File([pair("k", ValueType.STRING, string(b"\xc3("))]), "found byte 0xc3")
    refuse(tmp_path, File(tensors=[Tensor(b"\x80", (1,))], data=bytes(4)), "found byte 0x80")


def test_duplicate_key_refused(tmp_path: Path) -> None:
    """Two values for one key would let two readers see two models."""
    pairs = [pair("k", ValueType.UINT8, b"\1"), pair("k", ValueType.UINT8, b"\2")]
    refuse(tmp_path, File(pairs), "the key is there twice", part="metadata 'k'")


# Values.


@pytest.mark.parametrize("number", [13, 255, 2**31, 2**32 - 1])
def test_unknown_value_type_refused(tmp_path: Path, number: int) -> None:
    """A type whose size is not known cannot be skipped."""
    refuse(tmp_path, File([pair("k", number, bytes(8))]), f"type of 0 to 12, found {number}")
    content = File([pair("k", ValueType.ARRAY, array(number, [bytes(8)]))])
    refuse(tmp_path, content, f"type of 0 to 12, found {number}")


@pytest.mark.parametrize("byte", [2, 127, 255])
def test_bool_that_is_neither_refused(tmp_path: Path, byte: int) -> None:
    """The specification calls such a file invalid, alone and in arrays."""
    refuse(tmp_path, File([pair("k", ValueType.BOOL, bytes([byte]))]), f"0 or 1, found {byte}")
    items = [b"\0", b"\1", bytes([byte])]
    content = File([pair("k", ValueType.ARRAY, array(ValueType.BOOL, items))])
    error = refuse(tmp_path, content, f"0 or 1, found {byte}")
    assert error.offset == len(content.encode()) - 1


@pytest.mark.parametrize("item_type", [t for t in ValueType if t != ValueType.ARRAY])
@pytest.mark.parametrize("count", HUGE)
def test_array_count_beyond_file_refused(tmp_path: Path, item_type: ValueType, count: int) -> None:
    """No array is made before its items are known to be there (M1, M10)."""
    content = File([pair("k", ValueType.ARRAY, array(item_type, [], count=count) + bytes(64))])
    tracemalloc.start()
    try:
        refuse(tmp_path, content, "at most .* items", part="metadata 'k'")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_array_count_that_does_not_fit_refused(tmp_path: Path) -> None:
    """One item too many is enough."""
    content = File([pair("k", ValueType.ARRAY, array(ValueType.UINT64, [bytes(8)] * 3, count=4))])
    refuse(tmp_path, content, "4 items of at least 8 bytes do not fit in the 24 bytes left")


def test_token_longer_than_64_kib_refused(tmp_path: Path) -> None:
    """Tokens have a limit of their own (M4, CVE-2025-49847)."""
    items = [string("a"), string("b" * (2**16 + 1))]
    content = File([pair("k", ValueType.ARRAY, array(ValueType.STRING, items))])
    refuse(tmp_path, content, "at most 65536 bytes, found 65537", part="metadata 'k'[1]")


@pytest.mark.parametrize("depth", [5, 50, 100_000])
def test_deeply_nested_array_refused(tmp_path: Path, depth: int) -> None:
    """Nesting ends at four, not at the end of the stack."""
    opening = u32(ValueType.ARRAY) + u64(1)
    value = opening * (depth - 1) + array(ValueType.UINT8, [b"\1"])
    refuse(tmp_path, File([pair("k", ValueType.ARRAY, value)]), "nested at most 4 deep")


def test_very_many_nested_arrays_refused(tmp_path: Path) -> None:
    """Empty arrays by the hundred thousand would cost ten times their size."""
    inner = array(ValueType.UINT8, [])
    content = File([pair("k", ValueType.ARRAY, array(ValueType.ARRAY, [inner] * 70_000))])
    refuse(tmp_path, content, "at most 65536 items, found 70000")


def test_header_longer_than_64_mib_refused(tmp_path: Path) -> None:
    """A header that never ends is refused though the file goes on (M10)."""
    path = tmp_path / "long.gguf"
    front = File([], num_pairs=1).encode() + string("k") + u32(ValueType.ARRAY)
    with path.open("wb") as file:
        file.write(front + u32(ValueType.UINT8) + u64(2**26))
        file.truncate(2**27)
    with pytest.raises(ModelFormatError, match="do not fit"):
        GGUFFile.open(path)


# Alignment.


@pytest.mark.parametrize("alignment", [0, 1, 4, 12, 33, 131_072, 2**31, 2**32 - 1])
def test_impossible_alignment_refused(tmp_path: Path, alignment: int) -> None:
    """Zero divides nothing, and padding must be a power of two (M8, CVE-2025-0317)."""
    value = scalar(ValueType.UINT32, alignment)
    content = File(
        [pair("general.alignment", ValueType.UINT32, value)], [Tensor("w", (1,))], bytes(64)
    )
    refuse(tmp_path, content, f"power of two from 8 to 65536, found {alignment}")


@pytest.mark.parametrize(
    ("value_type", "value"),
    [(ValueType.UINT64, u64(32)), (ValueType.STRING, string("32")), (ValueType.BOOL, b"\1")],
)
def test_alignment_of_another_type_refused(
    tmp_path: Path, value_type: ValueType, value: bytes
) -> None:
    """A key the format itself uses has one type (M8)."""
    content = File([pair("general.alignment", value_type, value)])
    refuse(tmp_path, content, f"expected type UINT32, found {value_type.name}")


# Tensors.


def one_tensor(**fields: object) -> File:
    """A file with one F32 tensor of eight weights, but for the given fields."""
    return File(tensors=[Tensor(**fields)], data=bytes(64))  # type: ignore[arg-type]


def test_duplicate_tensor_refused(tmp_path: Path) -> None:
    """One name, one tensor."""
    tensors = [Tensor("w"), Tensor("w", offset=32)]
    refuse(tmp_path, File(tensors=tensors, data=bytes(64)), "the name is there twice")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_tensor_without_a_name_refused(tmp_path: Path, name: str) -> None:
    """A tensor must be able to be asked for."""
    refuse(tmp_path, one_tensor(name=name), "expected a name", part="tensor name 0")


def test_tensor_name_longer_than_64_bytes_refused(tmp_path: Path) -> None:
    """The specification's limit: 64 is fine, 65 is not."""
    path = tmp_path / "fine.gguf"
    path.write_bytes(one_tensor(name="w" * 64).encode())
    GGUFFile.open(path).close()
    refuse(tmp_path, one_tensor(name="w" * 65), "at most 64 bytes, found 65")


@pytest.mark.parametrize("num_dimensions", [5, 6, 2**31, 2**32 - 1])
def test_too_many_dimensions_refused(tmp_path: Path, num_dimensions: int) -> None:
    """Four dimensions at most, whatever the file goes on to list."""
    content = one_tensor(dimensions=(1,) * 5, num_dimensions=num_dimensions)
    refuse(tmp_path, content, f"at most 4 dimensions, found {num_dimensions}")


@pytest.mark.parametrize(
    "dimensions",
    [
        (2**62,),
        (2**32, 2**32),
        (2**16,) * 4,
        (2**63, 2),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1),
        (2**21 + 1, 2**21, 2**21),
        (2**63, 0),
    ],
)
def test_dimensions_that_overflow_refused(tmp_path: Path, dimensions: tuple[int, ...]) -> None:
    """Products that wrap in 64 bits do not wrap here (M2, M3, CVE-2026-33298)."""
    refuse(tmp_path, one_tensor(dimensions=dimensions), "below 2\\^63", part="tensor 'weight'")


@pytest.mark.parametrize("dimensions", [(17,), (2**20,), (2**20, 2**20), (1, 1, 2**40)])
def test_tensor_larger_than_the_file_refused(tmp_path: Path, dimensions: tuple[int, ...]) -> None:
    """Offset and size must end within the file (M6, Bleeding Llama)."""
    refuse(tmp_path, one_tensor(dimensions=dimensions), "pass the end of the file")


@pytest.mark.parametrize("offset", [64, 2**20, 2**63 - 32, 2**63, 2**64 - 32])
def test_offset_beyond_the_file_refused(tmp_path: Path, offset: int) -> None:
    """An offset that wraps when added is an offset beyond the file (M6)."""
    refuse(tmp_path, one_tensor(offset=offset), "pass the end of the file")


@pytest.mark.parametrize("offset", [1, 16, 31, 33])
def test_unaligned_offset_refused(tmp_path: Path, offset: int) -> None:
    """Data starts at a multiple of the alignment."""
    refuse(tmp_path, one_tensor(offset=offset, dimensions=(1,)), "a multiple of 32")


@pytest.mark.parametrize(
    ("ggml_type", "dimensions"),
    [
        (GGMLType.Q4_0, (31,)),
        (GGMLType.Q4_0, (1, 32)),
        (GGMLType.Q8_0, (33,)),
        (GGMLType.Q4_K, (128, 2)),
        (GGMLType.Q4_0, ()),
    ],
)
def test_row_that_is_not_whole_blocks_refused(
    tmp_path: Path, ggml_type: GGMLType, dimensions: tuple[int, ...]
) -> None:
    """Every row is a whole number of blocks, not only the tensor (M3)."""
    content = one_tensor(ggml_type=ggml_type, dimensions=dimensions)
    refuse(tmp_path, content, f"multiple of {ggml_type.block_size} weights for {ggml_type.name}")


@pytest.mark.parametrize("offsets", [(0, 0), (0, 32), (32, 0), (32, 32)])
def test_overlapping_tensors_refused(tmp_path: Path, offsets: tuple[int, int]) -> None:
    """No byte belongs to two tensors."""
    tensors = [Tensor("a", (16,), offset=offsets[0]), Tensor("b", (9,), offset=offsets[1])]
    refuse(tmp_path, File(tensors=tensors, data=bytes(128)), "starts inside tensor '[ab]'")


@pytest.mark.parametrize("number", [43, 100, 2**31, 2**32 - 1])
def test_unknown_number_format_refused(tmp_path: Path, number: int) -> None:
    """A format id nobody gave out is refused by number."""
    path = tmp_path / "new.gguf"
    path.write_bytes(one_tensor(ggml_type=number).encode())
    with pytest.raises(UnsupportedModelError, match=f"tensor 'weight' in .*'id {number}'; supp"):
        GGUFFile.open(path)


@pytest.mark.parametrize("number", [4, 5, 31, 32, 33, 36, 37, 38])
def test_removed_number_format_refused(tmp_path: Path, number: int) -> None:
    """A format that has no size any more is refused by its name."""
    path = tmp_path / "old.gguf"
    path.write_bytes(one_tensor(ggml_type=number).encode())
    with pytest.raises(UnsupportedModelError, match=f"'{GGMLType(number).name}'; supported"):
        GGUFFile.open(path)


# Every small change to a small file.


def seed_file() -> bytes:
    """Some 2.5 KB with every kind of field: all value types, arrays, several number formats."""
    numbers = [
        (ValueType.UINT8, 200),
        (ValueType.INT8, -3),
        (ValueType.UINT16, 60_000),
        (ValueType.INT16, -30_000),
        (ValueType.UINT32, 7),
        (ValueType.INT32, -7),
        (ValueType.FLOAT32, 1.5),
        (ValueType.BOOL, 1),
        (ValueType.UINT64, 2**40),
        (ValueType.INT64, -(2**40)),
        (ValueType.FLOAT64, 2.5),
    ]
    pairs = [pair("general.architecture", ValueType.STRING, string("test"))]
    pairs += [pair(f"n.{t.name}", t, scalar(t, value)) for t, value in numbers]
    pairs += [
        pair(f"a.{t.name}", ValueType.ARRAY, array(t, [scalar(t, v)] * 3)) for t, v in numbers
    ]
    tokens = [string(f"token {i}") for i in range(30)] + [string(""), string("x" * 300)]
    pairs.append(pair("tokens", ValueType.ARRAY, array(ValueType.STRING, tokens)))
    nested = [array(ValueType.STRING, [string("a")]), array(ValueType.UINT16, [bytes(2)] * 2)]
    pairs.append(pair("nested", ValueType.ARRAY, array(ValueType.ARRAY, nested)))
    pairs.append(pair("general.alignment", ValueType.UINT32, u32(32)))
    tensors = [
        Tensor("token_embd.weight", (32, 4), GGMLType.Q8_0, 0),
        Tensor("blk.0.attn_q.weight", (32, 3), GGMLType.Q4_0, 160),
        Tensor("output_norm.weight", (32,), GGMLType.F32, 224),
        Tensor("output.weight", (256, 1), GGMLType.Q6_K, 352),
    ]
    data = np.random.default_rng(1).integers(0, 256, 352 + 224, dtype=np.uint8).tobytes()
    return File(pairs, tensors, data).encode()


SEED = seed_file()
DATA_START = len(SEED) - 352 - 224


def open_and_use(path: Path) -> bool:
    """Open a file and touch all of it; whether it was valid."""
    try:
        file = GGUFFile.open(path)
    except (ModelFormatError, UnsupportedModelError):
        return False
    with file:
        for value in file.metadata.values():
            repr(list(value)) if hasattr(value, "__len__") else repr(value)
        for name, info in file.tensors.items():
            assert file.raw(name).size == info.num_bytes
            try:
                values = file.dequantized(name)
            except UnsupportedModelError:
                continue
            assert values.shape == info.shape
    return True


def count_valid(folder: Path, mutants: Iterator[bytes]) -> tuple[int, int]:
    """How many mutants were valid, of how many."""
    path = folder / "mutant.gguf"
    num_valid = num_all = 0
    for mutant in mutants:
        path.unlink(missing_ok=True)  # rewriting a file in place makes ext4 flush it
        path.write_bytes(mutant)
        num_valid += open_and_use(path)
        num_all += 1
    return num_valid, num_all


def test_the_seed_is_valid(tmp_path: Path) -> None:
    """The file that the mutants are made of opens."""
    assert count_valid(tmp_path, iter([SEED])) == (1, 1)


def test_truncation_at_every_byte_refused(tmp_path: Path) -> None:
    """However a file is cut short, it is refused; only the padding at its end may go."""
    num_valid, _ = count_valid(tmp_path, (SEED[:size] for size in range(1, len(SEED))))
    assert num_valid == 14  # bytes of padding after the 210 of the last tensor


@pytest.mark.parametrize("byte", [0x00, 0x7F, 0x80, 0xFF])
def test_every_header_byte_set_is_refused_or_valid(tmp_path: Path, byte: int) -> None:
    """Any header byte may have any extreme value; the outcome is an error of ours or a model."""
    mutants = (
        SEED[:i] + bytes([byte]) + SEED[i + 1 :] for i in range(DATA_START) if SEED[i] != byte
    )
    num_valid, num_all = count_valid(tmp_path, mutants)
    assert 0 < num_valid < num_all


@pytest.mark.parametrize("seed", range(4))
def test_random_mutants_are_refused_or_valid(tmp_path: Path, seed: int) -> None:
    """Random bytes, and fields of random width with edge values, at random places."""
    chance = random.Random(seed)
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]

    def mutants() -> Iterator[bytes]:
        for _ in range(1500):
            mutant = bytearray(SEED)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(DATA_START - 8)
                if chance.random() < 0.5:
                    mutant[at] = chance.randrange(256)
                else:
                    width = chance.choice([4, 8])
                    value = chance.choice(edges) % 2 ** (8 * width)
                    mutant[at : at + width] = value.to_bytes(width, "little")
            yield bytes(mutant)

    num_valid, num_all = count_valid(tmp_path, mutants())
    assert num_valid < num_all
