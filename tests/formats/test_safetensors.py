"""safetensors: Hugging Face directories, against the safetensors package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.safetensors import SafetensorsDir
from quintet.formats.weights import WeightSource

CONFIG = {"model_type": "qwen3", "hidden_size": 8, "rope_theta": 1e6}


def write_dir(folder: Path, **tensors: npt.NDArray[Any]) -> Path:
    """A model directory with one file."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_sharded(folder: Path, shards: dict[str, dict[str, npt.NDArray[Any]]]) -> Path:
    """A model directory with an index."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    for shard, tensors in shards.items():
        safetensors.numpy.save_file(tensors, folder / shard)
    write_index(folder, weight_map)
    return folder


def write_index(folder: Path, weight_map: Any) -> None:
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_directory_opens_as_a_weight_source(tmp_path: Path) -> None:
    """Configuration and tensors are there, under the checkpoint's names."""
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_dir(tmp_path, **{"model.norm.weight": weight[0].astype(np.float16), "w": weight})
    with SafetensorsDir.open(tmp_path) as model:
        source: WeightSource = model
        assert model.directory == tmp_path
        assert model.config == CONFIG
        assert model.generation_config == {}
        info = source.tensors["w"]
        assert (info.shape, info.ggml_type, info.num_bytes) == ((3, 4), GGMLType.F32, 48)
        np.testing.assert_array_equal(source.dequantized("w"), weight)
        np.testing.assert_array_equal(source.dequantized("model.norm.weight"), weight[0])
        assert source.raw("w").tobytes() == weight.tobytes()


def test_bf16_is_read(tmp_path: Path) -> None:
    """BF16, which NumPy lacks, is the upper half of float32."""
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], np.uint16)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bits.tobytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    with SafetensorsDir.open(tmp_path / "model.safetensors") as model:
        expected = (bits.astype(np.uint32) << 16).view(np.float32).reshape(2, 2)
        assert model.tensors["w"].ggml_type is GGMLType.BF16
        np.testing.assert_array_equal(model.dequantized("w"), expected)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30),
        hnp.arrays(
            st.sampled_from([np.float32, np.float16, np.int64]),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        ),
        max_size=6,
    ).filter(lambda tensors: "__metadata__" not in tensors)
)
def test_any_tensors_round_trip(tmp_path: Path, tensors: dict[str, npt.NDArray[Any]]) -> None:
    """Whatever the safetensors package writes is read back, bit for bit."""
    path = tmp_path / "any.safetensors"
    safetensors.numpy.save_file(tensors, path)
    with SafetensorsDir.open(path) as model:
        assert set(model.tensors) == set(tensors)
        for name, tensor in tensors.items():
            assert model.tensors[name].shape == tensor.shape
            assert model.raw(name).tobytes() == tensor.tobytes()
            if tensor.dtype != np.int64:
                found = model.dequantized(name)
                np.testing.assert_array_equal(found, tensor.astype(np.float32))


def test_integer_buffers_are_listed_but_not_dequantised(tmp_path: Path) -> None:
    """A checkpoint with position ids opens; asking for their values is refused by name."""
    write_dir(tmp_path, position_ids=np.arange(4), w=np.ones(1, np.float32))
    with SafetensorsDir.open(tmp_path) as model:
        assert model.tensors["position_ids"].ggml_type is GGMLType.I64
        with pytest.raises(UnsupportedModelError, match="I64"):
            model.dequantized("position_ids")


def test_raw_bytes_are_a_read_only_view_that_outlives_close(tmp_path: Path) -> None:
    """Nothing is copied, nothing can be written, and closing pulls no memory away."""
    write_dir(tmp_path, w=np.ones(4, np.float32))
    model = SafetensorsDir.open(tmp_path)
    raw = model.raw("w")
    with pytest.raises(ValueError, match="read-only"):
        raw[0] = 1
    model.close()
    model.close()
    assert raw.view(np.float32).tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="closed"):
        model.raw("w")


SHARDS = {
    "model-00001-of-00002.safetensors": {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)},
    "model-00002-of-00002.safetensors": {"c": np.full(4, 7, np.float16)},
}


def test_a_sharded_directory_opens_as_one(tmp_path: Path) -> None:
    """The index leads to all shards, and generation_config.json is read too."""
    write_sharded(tmp_path, SHARDS)
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6}')
    with SafetensorsDir.open(tmp_path) as model:
        assert [path.name for path in model.paths] == sorted(SHARDS)
        assert model.generation_config == {"temperature": 0.6}
        for tensors in SHARDS.values():
            for name, tensor in tensors.items():
                np.testing.assert_array_equal(model.dequantized(name), tensor)


def test_linked_shards_are_followed(tmp_path: Path) -> None:
    """A download cache keeps blobs and links to them by name."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    write_sharded(tmp_path / "blobs", SHARDS)
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    with SafetensorsDir.open(tmp_path / "snapshot") as model:
        assert set(model.tensors) == {"a", "b", "c"}


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    """A directory without its config or its weights is not a model."""
    write_dir(tmp_path, w=np.ones(1, np.float32))
    (tmp_path / missing).unlink()
    with pytest.raises(ModelNotFoundError, match=missing):
        SafetensorsDir.open(tmp_path)
    with pytest.raises(ModelNotFoundError, match="No such file"):
        SafetensorsDir.open(tmp_path / "none")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """The error says which shard is not there."""
    write_sharded(tmp_path, SHARDS)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="model-00002-of-00002"):
        SafetensorsDir.open(tmp_path)


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors",
        "/etc/secret.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "C:x.safetensors",
        ".hidden.safetensors",
        "x.safetensors\0",
        "pytorch_model.bin",
        "..",
        "",
        7,
        None,
        ["x.safetensors"],
    ],
)
def test_an_index_that_leads_out_of_its_directory_is_refused(tmp_path: Path, shard: Any) -> None:
    """Names from a file stay beside that file (M16), even where the target exists."""
    (tmp_path / "model" / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.safetensors", tmp_path / "model" / "sub" / "x.safetensors"):
        safetensors.numpy.save_file({"a": np.ones(1, np.float32)}, path)
    write_sharded(tmp_path / "model", {})
    write_index(tmp_path / "model", {"a": shard})
    with pytest.raises(ModelFormatError, match="name of a safetensors file in the directory"):
        SafetensorsDir.open(tmp_path / "model")


@pytest.mark.parametrize("weight_map", [None, {}, [], "x", 3])
def test_an_index_without_a_map_is_refused(tmp_path: Path, weight_map: Any) -> None:
    """An index has to say where tensors are."""
    write_sharded(tmp_path, SHARDS)
    write_index(tmp_path, weight_map)
    with pytest.raises(ModelFormatError, match="shards by tensor"):
        SafetensorsDir.open(tmp_path)


def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path: Path) -> None:
    """A tensor must be where the index says it is."""
    write_sharded(tmp_path, SHARDS)
    first, second = sorted(SHARDS)
    write_index(tmp_path, {"a": first, "c": first, "b": second})
    with pytest.raises(ModelFormatError, match=f"expected the tensor in {first}, found .*{second}"):
        SafetensorsDir.open(tmp_path)
    write_index(tmp_path, {"a": first, "c": second, "d": second})
    with pytest.raises(ModelFormatError, match="in no shard"):
        SafetensorsDir.open(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    """One name, one tensor, over all shards."""
    one = {"a": np.ones(1, np.float32)}
    write_sharded(tmp_path, {"x.safetensors": one, "y.safetensors": one})
    write_index(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"})
    with pytest.raises(ModelFormatError, match=r"is in x\.safetensors too"):
        SafetensorsDir.open(tmp_path)


def test_a_single_file_is_read_with_the_config_beside_it(tmp_path: Path) -> None:
    """Opened by its file, a model has its config if there is one, else an empty one."""
    write_dir(tmp_path, w=np.ones(1, np.float32))
    assert SafetensorsDir.open(tmp_path / "model.safetensors").config == CONFIG
    (tmp_path / "config.json").unlink()
    assert SafetensorsDir.open(tmp_path / "model.safetensors").config == {}


def test_a_config_that_is_not_strict_json_is_refused(tmp_path: Path) -> None:
    """A config with two values for a key is not guessed at."""
    write_dir(tmp_path, w=np.ones(1, np.float32))
    (tmp_path / "config.json").write_text('{"hidden_size": 8, "hidden_size": 16}')
    with pytest.raises(ModelFormatError, match="'hidden_size' is there twice"):
        SafetensorsDir.open(tmp_path)
