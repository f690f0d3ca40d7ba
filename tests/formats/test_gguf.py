"""GGUF files: tensors, versions, split models, real vocabularies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.formats.ggml_types import DEQUANTIZABLE, GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_metadata import ValueType
from quintet.formats.weights import SourceIdentity, WeightSource

from .gguf_bytes import File, Tensor, pair, scalar

FORMATS = sorted(DEQUANTIZABLE)


def raw_rows(ggml_type: GGMLType, rows: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random bytes for a [rows, width] tensor, [rows, row_bytes]."""
    size = (rows, width // ggml_type.block_size * ggml_type.block_bytes)
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def write_all_formats(path: Path, **options: Any) -> None:
    """A file with one [3, 256] tensor per format, written by the gguf package."""
    writer = gguf.GGUFWriter(path, "test", **options)
    for ggml_type in FORMATS:
        raw = raw_rows(ggml_type, 3, 256, seed=int(ggml_type))
        writer.add_tensor(
            f"{ggml_type.name}.weight", raw, raw_dtype=gguf.GGMLQuantizationType(ggml_type)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_every_format_is_read_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    """Names, order, shapes, bytes and values agree with the gguf package's reader."""
    path = tmp_path / "all.gguf"
    write_all_formats(path)
    oracle = gguf.GGUFReader(path)
    with GGUFFile.open(path) as file:
        source: WeightSource = file
        assert list(source.tensors) == [tensor.name for tensor in oracle.tensors]
        for tensor in oracle.tensors:
            info = source.tensors[tensor.name]
            assert info.shape == tuple(reversed(tensor.shape.tolist())) == (3, 256)
            assert info.ggml_type == tensor.tensor_type
            assert info.num_bytes == tensor.n_bytes
            expected = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(-1)
            np.testing.assert_array_equal(source.raw(tensor.name), expected)
            with np.errstate(all="ignore"):
                values = gguf.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(source.dequantized(tensor.name), values)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), max_size=6),
    ggml_type=st.sampled_from([GGMLType.F32, GGMLType.BF16, GGMLType.Q8_0, GGMLType.Q4_K]),
    alignment=st.sampled_from([8, 32, 256, 4096]),
)
def test_any_tensors_round_trip(
    tmp_path: Path, shapes: list[list[int]], ggml_type: GGMLType, alignment: int
) -> None:
    """Whatever tensors the gguf package writes, at whatever alignment, are found again."""
    path = tmp_path / "any.gguf"
    writer = gguf.GGUFWriter(path, "test")
    writer.add_custom_alignment(alignment)
    written: dict[str, tuple[tuple[int, ...], bytes]] = {}
    for index, dims in enumerate(shapes):
        shape = (*dims[:-1], dims[-1] * ggml_type.block_size)
        raw = raw_rows(ggml_type, int(np.prod(dims[:-1])), shape[-1], seed=index)
        stored = raw.reshape(*dims[:-1], -1)
        writer.add_tensor(f"t{index}", stored, raw_dtype=gguf.GGMLQuantizationType(ggml_type))
        written[f"t{index}"] = (shape, raw.tobytes())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile.open(path) as file:
        assert file.alignment == alignment
        found = {
            name: (info.shape, file.raw(name).tobytes()) for name, info in file.tensors.items()
        }
    assert found == written


def test_raw_bytes_are_a_read_only_view_that_outlives_close(tmp_path: Path) -> None:
    """Nothing is copied, nothing can be written, and closing pulls no memory away."""
    path = tmp_path / "all.gguf"
    write_all_formats(path)
    file = GGUFFile.open(path)
    raw = file.raw("Q4_K.weight")
    assert raw.dtype == np.uint8
    assert raw.base is not None
    assert np.shares_memory(raw, file.raw("Q4_K.weight"))
    with pytest.raises(ValueError, match="read-only"):
        raw[0] = 1
    file.close()
    file.close()
    np.testing.assert_array_equal(raw, raw_rows(GGMLType.Q4_K, 3, 256, seed=12).reshape(-1))
    with pytest.raises(ValueError, match="closed"):
        file.raw("Q4_K.weight")


def test_an_unknown_tensor_is_a_key_error(tmp_path: Path) -> None:
    """A name that is not in the file is the caller's mistake."""
    write_all_formats(tmp_path / "all.gguf")
    with GGUFFile.open(tmp_path / "all.gguf") as file, pytest.raises(KeyError):
        file.raw("missing")


@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3_are_read(tmp_path: Path, version: int) -> None:
    """Both versions have the same layout."""
    path = tmp_path / "v.gguf"
    values = np.arange(6, dtype=np.float32)
    content = File(
        version=version,
        pairs=[pair("general.alignment", ValueType.UINT32, scalar(ValueType.UINT32, 64))],
        tensors=[Tensor("w", (3, 2))],
        alignment=64,
        data=values.tobytes(),
    )
    path.write_bytes(content.encode())
    with GGUFFile.open(path) as file:
        assert (file.version, file.alignment, file.path) == (version, 64, path)
        np.testing.assert_array_equal(file.dequantized("w"), values.reshape(2, 3))


def test_a_scalar_and_an_empty_tensor_are_read(tmp_path: Path) -> None:
    """No dimensions is one number; a dimension of zero is none."""
    path = tmp_path / "small.gguf"
    tensors = [Tensor("empty", (4, 0)), Tensor("scalar", ())]
    path.write_bytes(File(tensors=tensors, data=np.float32(2.5).tobytes()).encode())
    with GGUFFile.open(path) as file:
        assert file.dequantized("scalar") == np.float32(2.5)
        assert file.dequantized("scalar").shape == ()
        assert file.dequantized("empty").shape == (0, 4)


def test_a_format_we_cannot_dequantise_can_still_be_inspected(tmp_path: Path) -> None:
    """A file in Q8_K opens and lists its tensors; its values are refused by name."""
    path = tmp_path / "q8_k.gguf"
    tensors = [Tensor("w", (256,), ggml_type=GGMLType.Q8_K)]
    path.write_bytes(File(tensors=tensors, data=bytes(292)).encode())
    with GGUFFile.open(path) as file:
        assert file.tensors["w"].ggml_type is GGMLType.Q8_K
        assert file.raw("w").size == 292
        with pytest.raises(UnsupportedModelError, match="Q8_K"):
            file.dequantized("w")


def test_a_path_that_is_no_file_is_not_found(tmp_path: Path) -> None:
    """A missing file, a directory and an impossible name are all told apart from a bad file."""
    for path in (tmp_path / "none.gguf", tmp_path, tmp_path / "a\0b.gguf"):
        with pytest.raises(ModelNotFoundError):
            GGUFFile.open(path)


# Split models.


def write_split(folder: Path, *, tensors_per_shard: int = 9) -> list[Path]:
    """All formats over three shards, written by the gguf package."""
    write_all_formats(folder / "model.gguf", split_max_tensors=tensors_per_shard)
    paths = sorted(folder.glob("model-*.gguf"))
    assert [path.name for path in paths] == [f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    return paths


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_any_shard_opens_the_whole_model(tmp_path: Path, opened: int) -> None:
    """All tensors are there, each from its shard, and the metadata is the first shard's."""
    paths = write_split(tmp_path)
    with GGUFFile.open(paths[opened]) as file:
        assert file.path == paths[opened]
        assert list(file.paths) == paths
        assert list(file.tensors) == [f"{ggml_type.name}.weight" for ggml_type in FORMATS]
        assert file.metadata["general.architecture"] == "test"
        for ggml_type in FORMATS:
            raw = raw_rows(ggml_type, 3, 256, seed=int(ggml_type)).reshape(-1)
            np.testing.assert_array_equal(file.raw(f"{ggml_type.name}.weight"), raw)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """The error says which file is not there."""
    paths = write_split(tmp_path)
    paths[1].unlink()
    with pytest.raises(ModelNotFoundError, match=r"shard 2 of 3 is missing: .*-00002-of-00003"):
        GGUFFile.open(paths[0])


def test_a_renamed_shard_is_refused(tmp_path: Path) -> None:
    """Without its number in its name a shard's siblings cannot be found."""
    renamed = write_split(tmp_path)[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelFormatError, match=r"ends in -00001-of-00003\.gguf") as caught:
        GGUFFile.open(renamed)
    assert caught.value.part == "split.no"


def test_a_shard_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    """Shard 3 under the name of shard 2 says so itself."""
    paths = write_split(tmp_path)
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(ModelFormatError, match="expected 1, found 2") as caught:
        GGUFFile.open(paths[0])
    assert (caught.value.path, caught.value.part) == (str(paths[1]), "split.no")


def test_a_shard_of_another_model_is_refused(tmp_path: Path) -> None:
    """Tensor counts of the shards must add up."""
    paths = write_split(tmp_path)
    (tmp_path / "other").mkdir()
    others = write_split(tmp_path / "other", tensors_per_shard=10)
    paths[0].write_bytes(others[0].read_bytes())
    with pytest.raises(ModelFormatError, match="expected 27, found 26") as caught:
        GGUFFile.open(paths[1])
    assert caught.value.part == "split.tensors.count"


def split_pairs(number: int, count: int, num_tensors: int) -> list[bytes]:
    return [
        pair("split.no", ValueType.UINT16, scalar(ValueType.UINT16, number)),
        pair("split.count", ValueType.UINT16, scalar(ValueType.UINT16, count)),
        pair("split.tensors.count", ValueType.INT32, scalar(ValueType.INT32, num_tensors)),
    ]


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    """One name, one tensor, over all shards."""
    for number in range(2):
        content = File(split_pairs(number, 2, 2), [Tensor("w", (1,))], bytes(4))
        (tmp_path / f"m-0000{number + 1}-of-00002.gguf").write_bytes(content.encode())
    with pytest.raises(ModelFormatError, match=r"is in m-00001-of-00002\.gguf too") as caught:
        GGUFFile.open(tmp_path / "m-00001-of-00002.gguf")
    assert caught.value.part == "tensor 'w'"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (split_pairs(0, 2000, 1), "at most 1024 shards, found 2000"),
        (split_pairs(5, 2, 1), "ends in -00006-of-00002"),
        ([pair("split.count", ValueType.INT8, b"\xff")], "found -1"),
        ([pair("split.count", ValueType.FLOAT32, bytes(4))], "whole number"),
        ([pair("split.count", ValueType.UINT8, b"\2")], "found None"),
    ],
)
def test_impossible_split_metadata_is_refused(
    tmp_path: Path, pairs: list[bytes], message: str
) -> None:
    """Shard numbers and counts are checked before any file name is made of them."""
    path = tmp_path / "m-00001-of-00002.gguf"
    path.write_bytes(File(pairs, [Tensor("w", (1,))], bytes(4)).encode())
    with pytest.raises(ModelFormatError, match=message):
        GGUFFile.open(path)


# Real vocabularies.


@pytest.mark.parametrize("name", ["llama-spm", "bert-bge", "gpt-2"])
def test_a_real_vocabulary_is_read_as_the_gguf_package_reads_it(
    shared_data: Path, name: str
) -> None:
    """Every value of a published tokenizer file agrees with the gguf package's reader."""
    path = shared_data / "vocab" / f"ggml-vocab-{name}.gguf"
    fields = gguf.GGUFReader(path).fields
    with GGUFFile.open(path) as file:
        expected = [key for key in fields if not key.startswith("GGUF.")]
        assert list(file.metadata) == expected
        for key in expected:
            found = file.metadata[key]
            is_array = file.value_types[key] == ValueType.ARRAY
            assert (list(found) if is_array else found) == fields[key].contents()


def test_a_vocabulary_of_151936_tokens_is_all_there(shared_data: Path) -> None:
    """Tokens and merges of a large vocabulary are found by index, from either end."""
    path = shared_data / "vocab" / "ggml-vocab-qwen2.gguf"
    file = GGUFFile.open(path)
    tokens, merges = (file.metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "merges"))
    assert (len(tokens), len(merges)) == (151_936, 151_387)
    assert (tokens[0], tokens[9707], tokens[151_643]) == ("!", "Hello", "<|endoftext|>")
    assert merges[-1] == list(merges)[-1]


def test_a_file_that_is_read_has_what_a_mapped_one_has(tmp_path: Path) -> None:
    """Without a memory map the same tensors come, as copies."""
    path = tmp_path / "all.gguf"
    write_all_formats(path)
    with GGUFFile.open(path) as mapped, GGUFFile.open(path, use_mmap=False) as read:
        assert mapped.is_mapped
        assert not read.is_mapped
        assert mapped.identity == read.identity
        for name in mapped.tensors:
            np.testing.assert_array_equal(mapped.raw(name), read.raw(name))
            assert not read.raw(name).flags.writeable
    with pytest.raises(ValueError, match="closed"):
        read.raw(name)


def test_a_file_that_is_cut_off_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """Where a mapped file would end the process, one that is read says what happened."""
    path = tmp_path / "all.gguf"
    write_all_formats(path)
    with GGUFFile.open(path, use_mmap=False) as file:
        name = list(file.tensors)[-1]
        os.truncate(path, path.stat().st_size - 400)
        with pytest.raises(ModelFormatError, match="cut off meanwhile"):
            file.raw(name)


def test_identity_tells_files_apart(tmp_path: Path) -> None:
    """It stays while the file does, and changes when the file is written to."""
    path = tmp_path / "all.gguf"
    write_all_formats(path)

    def identity() -> SourceIdentity:
        with GGUFFile.open(path) as file:
            return file.identity

    first = identity()
    assert identity() == first
    os.utime(path, ns=(1, 1))
    assert identity().digest != first.digest
    assert identity().paths == first.paths == (str(path.resolve()),)
