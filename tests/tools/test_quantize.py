"""Quantising whole files."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from quintet import LLM
from quintet.cli.app import app
from quintet.errors import CapacityError, ModelFormatError, ModelNotFoundError, RequestError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.hub.packaged import packaged_models
from quintet.tools.imatrix_file import Importances, write_imatrix
from quintet.tools.quantize import quantize
from quintet.tools.recipes import RECIPES

PROMPT = "What is the capital of France?"


@pytest.fixture(scope="module")
def demo() -> Path:
    return Path(packaged_models()["demo"])


@pytest.fixture(scope="module")
def f32(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo in float32, as a model before quantisation is."""
    path = tmp_path_factory.mktemp("f32") / "demo.gguf"
    quantize(demo, path, "F32")
    return path


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "F32"])
def test_every_type_opens_in_the_gguf_package_with_the_same_values(name, f32, tmp_path):
    """The file says what it is; other readers find the values that ours finds."""
    path = tmp_path / "q.gguf"
    result = quantize(f32, path, name.lower())
    assert path.stat().st_size == result.file_bytes
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.file_type").contents() == RECIPES[name].file_type
    with GGUFFile.open(path) as ours, GGUFFile.open(f32) as source:
        assert (
            ours.metadata["tokenizer.chat_template"] == source.metadata["tokenizer.chat_template"]
        )
        assert list(ours.metadata["tokenizer.ggml.tokens"]) == list(
            source.metadata["tokenizer.ggml.tokens"]
        )
        for tensor in reader.tensors[:12]:
            theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            found = ours.dequantized(tensor.name)
            np.testing.assert_array_equal(found, theirs.reshape(found.shape))
            # In relation to the values' own size: even 2 bits are no noise.
            rest = found - source.dequantized(tensor.name)
            assert np.linalg.norm(rest) < 0.4 * np.linalg.norm(found)


@pytest.mark.parametrize("name", ["Q4_K_M", "IQ4_XS"])
def test_a_quantised_model_still_answers(name, f32, tmp_path):
    """Four bits are enough for the demo to know its capitals."""
    quantize(f32, tmp_path / "q.gguf", name)
    with LLM(str(tmp_path / "q.gguf")) as llm:
        assert "Paris" in llm.chat([{"role": "user", "content": PROMPT}]).text


def test_quantised_input_is_read_too(demo, f32, tmp_path):
    """From Q8_0, of which the float32 file holds the values, come the same bytes."""
    quantize(demo, tmp_path / "a.gguf", "Q4_K_M")
    quantize(f32, tmp_path / "b.gguf", "Q4_K_M")
    with GGUFFile.open(tmp_path / "a.gguf") as a, GGUFFile.open(tmp_path / "b.gguf") as b:
        for name in a.tensors:
            assert a.raw(name).tobytes() == b.raw(name).tobytes()


def test_a_dry_run_predicts_the_file_and_writes_nothing(f32, tmp_path):
    """Types and size are those of the real run."""
    path = tmp_path / "q.gguf"
    predicted = quantize(f32, path, "Q3_K_M", dry_run=True)
    assert not list(tmp_path.iterdir())
    result = quantize(f32, path, "Q3_K_M")
    assert predicted.tensors == result.tensors
    assert predicted.file_bytes == path.stat().st_size


def test_progress_goes_from_nothing_to_all(f32, tmp_path):
    """It never goes back and ends at 1 with every tensor."""
    seen = []
    result = quantize(f32, tmp_path / "q.gguf", "Q8_0", progress=seen.append)
    fractions = [each.fraction for each in seen]
    assert fractions[0] == 0
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert seen[-1].num_tensors_done == seen[-1].num_tensors == len(result.tensors)


def test_an_exception_of_the_callback_stops_and_leaves_nothing(f32, tmp_path):
    """A caller can cancel."""

    def cancel(progress):
        if progress.num_tensors_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(f32, tmp_path / "q.gguf", "Q8_0", progress=cancel)
    assert not list(tmp_path.iterdir())


def test_long_tensors_are_cut_into_chunks_of_rows(f32, tmp_path, monkeypatch):
    """The border between two chunks leaves no trace."""
    quantize(f32, tmp_path / "whole.gguf", "Q4_K_M")
    monkeypatch.setattr("quintet.tools.quantize._WEIGHTS_PER_CHUNK", 1000)
    quantize(f32, tmp_path / "cut.gguf", "Q4_K_M")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "cut.gguf").read_bytes()


def importances(path: Path, width: int = 256) -> Importances:
    with GGUFFile.open(path) as file:
        names = [name for name in file.tensors if "attn_q.weight" in name]
    values = np.linspace(0.01, 3, width, dtype=np.float32)[np.newaxis]
    return Importances(
        dict.fromkeys(names, values),
        {name: np.ones(1, np.float32) for name in names},
        dataset="text",
    )


def test_an_importance_matrix_moves_error_to_where_it_matters_less(f32, tmp_path):
    """Weighted error falls in the tensors it knows, others stay, and the file names it."""
    write_imatrix(tmp_path / "imatrix.gguf", importances(f32))
    quantize(f32, tmp_path / "plain.gguf", "Q3_K_S")
    result = quantize(f32, tmp_path / "with.gguf", "Q3_K_S", imatrix=tmp_path / "imatrix.gguf")
    assert "blk.0.ffn_up.weight" in result.without_importance
    assert "blk.0.attn_q.weight" not in result.without_importance
    column = np.linspace(0.01, 3, 256)
    with (
        GGUFFile.open(f32) as source,
        GGUFFile.open(tmp_path / "plain.gguf") as plain,
        GGUFFile.open(tmp_path / "with.gguf") as weighted,
    ):
        name = "blk.0.attn_q.weight"
        exact = source.dequantized(name)

        def error(file):
            return (((file.dequantized(name) - exact) ** 2) * column).sum()

        assert error(weighted) < error(plain)
        other = "blk.0.ffn_up.weight"
        assert weighted.raw(other).tobytes() == plain.raw(other).tobytes()
        assert weighted.metadata["quantize.imatrix.dataset"] == "text"
        assert weighted.metadata["quantize.imatrix.entries_count"] == 5


def test_refusals(f32, tmp_path, monkeypatch):
    """What cannot be done is said before anything is written."""
    out = tmp_path / "q.gguf"
    with pytest.raises(RequestError, match="type"):
        quantize(f32, out, "Q7_Z")
    with pytest.raises(ModelNotFoundError):
        quantize(tmp_path / "nothing.gguf", out, "Q8_0")
    with pytest.raises(ModelFormatError):
        quantize(Path(__file__), out, "Q8_0")
    with pytest.raises(RequestError, match="another model"):
        quantize(f32, out, "Q4_K_M", imatrix=importances(f32, width=128))
    with pytest.raises(RequestError, match="no such directory"):
        quantize(f32, tmp_path / "no" / "q.gguf", "Q8_0")
    with pytest.raises(RequestError, match="is a directory"):
        quantize(f32, tmp_path, "Q8_0")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(CapacityError, match="GB are free"):
        quantize(f32, out, "Q8_0")
    assert not list(tmp_path.iterdir())


def test_the_input_is_never_overwritten(f32, tmp_path):
    """Neither by its name nor by another name of the same file."""
    copy, other = tmp_path / "m.gguf", tmp_path / "other.gguf"
    shutil.copy(f32, copy)
    other.hardlink_to(copy)
    for output in (copy, other, tmp_path / "." / "m.gguf"):
        with pytest.raises(RequestError, match="input itself"):
            quantize(copy, output, "Q8_0")


def test_the_command(f32, tmp_path):
    """A table in a dry run, one line after a real one."""
    out = tmp_path / "q.gguf"
    runner = CliRunner()
    result = runner.invoke(
        app, ["quantize", str(f32), str(out), "q4_k_m", "--dry-run", "--tensor-type", "attn_q=q8_0"]
    )
    assert result.exit_code == 0, result.output
    assert "blk.0.attn_q.weight" in result.output
    assert "not written" in result.output
    assert not out.exists()
    result = runner.invoke(app, ["quantize", "demo", str(out), "Q4_K_M", "--threads", "2"])
    assert result.exit_code == 0, result.output
    assert "Q4_K_M" in result.output
    with GGUFFile.open(out) as file:
        assert file.tensors["blk.0.attn_q.weight"].ggml_type == GGMLType.Q4_K
    result = runner.invoke(app, ["quantize", "demo", str(out), "Q4_K_M", "--tensor-type", "oops"])
    assert isinstance(result.exception, RequestError)
