"""What inspection finds, against files written by the gguf and safetensors packages."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from quintet.cli.app import app
from quintet.errors import ModelFormatError, ModelNotFoundError
from quintet.formats.ggml_types import DEQUANTIZABLE
from quintet.tools.inspect import inspect_model, shown_value


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """Two float tensors, a quantised one, and metadata of every kind."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny\x1b[2J")
    writer.add_array("numbers", list(range(100)))
    writer.add_array("strings", ["a", "b"])
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_tensor("a", np.zeros((4, 32), np.float32))
    writer.add_tensor("b", np.zeros((3,), np.float16))
    blocks = gguf.quants.quantize(np.ones((8, 64), np.float32), gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("c", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_totals_add_up(gguf_file: Path):
    """Parameters and bytes are counted per number format and together."""
    found = inspect_model(gguf_file)
    assert found.format == "GGUF 3"
    assert found.num_parameters == 4 * 32 + 3 + 8 * 64
    assert found.num_tensor_bytes == 4 * 32 * 4 + 3 * 2 + 8 * 2 * 18
    assert found.num_file_bytes == gguf_file.stat().st_size
    assert [(t.type, t.num_tensors, t.num_parameters, t.num_bytes) for t in found.totals()] == [
        ("F32", 1, 128, 512),
        ("Q4_0", 1, 512, 288),
        ("F16", 1, 3, 6),
    ]


def test_json_round_trips_and_cuts_long_arrays(gguf_file: Path):
    """The JSON has every key and tensor; an array of 100 says how long it is."""
    data = json.loads(json.dumps(inspect_model(gguf_file).as_json(), allow_nan=False))
    assert data["metadata"]["numbers"] == {"num_items": 100, "first_items": [0, 1, 2, 3, 4]}
    assert data["metadata"]["strings"] == ["a", "b"]
    assert data["metadata"]["a.bool"] is True
    assert data["tensors"][2] == {
        "name": "c", "shape": [8, 64], "type": "Q4_0", "num_bytes": 288,
    }  # fmt: skip


def test_safetensors_directories_are_inspected(tmp_path: Path):
    """A Hugging Face directory shows its config.json as metadata."""
    save_file({"w": np.zeros((2, 3), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "x", "rope": {"theta": 1.0}, "n": null}')
    for path in (tmp_path, tmp_path / "model.safetensors"):
        found = inspect_model(path)
        assert found.format == "safetensors"
        assert found.num_parameters == 6
        assert found.as_json()["metadata"] == {"model_type": "x", "rope": {"theta": 1.0}, "n": None}


def test_files_that_are_no_models(tmp_path: Path):
    """A missing file and a file of another kind are told apart."""
    with pytest.raises(ModelNotFoundError):
        inspect_model(tmp_path / "absent")
    other = tmp_path / "other"
    other.write_text("hello, this is no model")
    with pytest.raises(ModelFormatError, match="GGUF"):
        inspect_model(other)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\n  b", "a b"),
        ("x" * 200, "x" * 100 + "... (200 characters)"),
        (True, "True"),
        (None, "None"),
        (0.1, "0.1"),
        ([1, 2], "[1, 2]"),
        (np.arange(7), "[0, 1, 2, 3, 4, ... (7 items)]"),
        ({"a": [1], "b": "c"}, "{a: [1], b: c}"),
        ((), "[]"),
    ],
)
def test_shown_values_fit_on_a_line(value: object, shown: str):
    """Long texts and arrays are cut and say so."""
    assert shown_value(value) == shown


def test_inspect_prints_tables(gguf_file: Path):
    """The command shows metadata, totals and, when asked, tensors; nothing steers the terminal."""
    runner = CliRunner()
    result = runner.invoke(app, ["inspect", str(gguf_file)])
    assert result.exit_code == 0
    assert "643 parameters in 3 tensors" in result.output
    assert "\x1b[2J" not in result.output
    assert "(100 items)" in result.output
    assert "8 x 64" not in result.output
    assert "8 x 64" in runner.invoke(app, ["inspect", str(gguf_file), "--tensors"]).output


def test_inspect_json_is_the_same_data(gguf_file: Path):
    """--json prints what the library returns."""
    result = CliRunner().invoke(app, ["inspect", str(gguf_file), "--json"])
    assert json.loads(result.output) == inspect_model(gguf_file).as_json()


def test_every_number_format_is_named(tmp_path: Path):
    """A file of one tensor in each format that can be read is counted by their names."""
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for ggml_type in DEQUANTIZABLE:
        zeros = np.zeros((2, ggml_type.num_bytes((256,))), np.uint8)
        writer.add_tensor(ggml_type.name, zeros, raw_dtype=gguf.GGMLQuantizationType(ggml_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {(t.type, t.num_parameters, t.num_bytes) for t in inspect_model(path).totals()}
    assert found == {(t.name, 512, t.num_bytes((2, 256))) for t in DEQUANTIZABLE}
