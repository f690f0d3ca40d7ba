"""Memory, as estimated and as taken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quintet.cli.app import app
from quintet.engine.sizing import resident_bytes
from quintet.errors import CapacityError, ContextLengthError, EngineError
from quintet.hub.packaged import packaged_models
from quintet.tools.estimate import estimate, recommend
from quintet.tools.footprint import measure_footprint
from quintet.tools.quantize import quantize

DEMO = Path(packaged_models()["demo"])

# A process of its own reads the whole context at once, so that all it may touch is touched.
MEASURE = """
import sys
from quintet import LLM, SamplingParams
with LLM(sys.argv[1], max_num_seqs=1, kv_cache_bytes=int(sys.argv[2])) as llm:
    llm.generate([[5] * 2000], SamplingParams(max_tokens=8, temperature=0, ignore_eos=True))
    lines = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")))
"""


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process takes differs by some pages from one to the next; here it does not."""
    monkeypatch.setattr("quintet.tools.estimate.measure_footprint", lambda path: 50_000_000)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_estimate_is_what_a_process_takes(tmp_path):
    """Resident memory after a full context is within 5 %."""
    path = tmp_path / "f32.gguf"
    quantize(DEMO, path, "F32")
    found = estimate(path)
    command = [sys.executable, "-c", MEASURE, str(path), str(found.cache_bytes)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.total_bytes == pytest.approx(int(result.stdout), rel=0.05)


@pytest.mark.usefixtures("same_process")
def test_cache_and_weights_grow_as_they_must():
    """The cache with context and batch, weights with bits."""
    one, four = estimate(DEMO, context=512), estimate(DEMO, context=1024, batch=2)
    assert four.cache_bytes == 4 * one.cache_bytes
    assert four.weight_bytes == one.weight_bytes
    assert estimate(DEMO, context=512, kv_dtype="float32").cache_bytes == 2 * one.cache_bytes
    with pytest.raises(ContextLengthError):
        estimate(DEMO, context=100_000)


@pytest.mark.usefixtures("same_process")
def test_a_recommendation_is_what_the_file_then_takes(tmp_path):
    """The estimate of a type is that of the file made in it."""
    choices = {choice.type: choice for choice in recommend(DEMO, 10**9)}
    quantize(DEMO, tmp_path / "q.gguf", "Q3_K_M")
    assert choices["Q3_K_M"].estimate == estimate(tmp_path / "q.gguf")


@pytest.mark.usefixtures("same_process")
def test_the_best_that_fits_comes_first():
    """Types are sorted by size, and a budget between two of them cuts there."""
    choices = recommend(DEMO, 10**9)
    assert [choice.fits for choice in choices] == [True] * len(choices)
    budget = choices[4].estimate.total_bytes
    limited = recommend(DEMO, budget)
    assert next(choice for choice in limited if choice.fits).type == choices[4].type


@pytest.mark.usefixtures("same_process")
def test_the_commands():
    """Tables, JSON, and an error where nothing fits."""
    runner = CliRunner()
    result = runner.invoke(app, ["estimate", "demo", "--context", "512"])
    assert "KV cache" in result.output
    result = runner.invoke(app, ["estimate", "demo", "--json"])
    assert json.loads(result.output)["weight_bytes"] == estimate(DEMO).weight_bytes
    result = runner.invoke(app, ["inspect", "demo", "--estimate", "--json"])
    assert json.loads(result.output)["estimate"]["total_bytes"] == estimate(DEMO).total_bytes
    assert "KV cache" in runner.invoke(app, ["inspect", "demo", "--estimate"]).output
    result = runner.invoke(app, ["recommend", "demo", "--memory", "1"])
    assert "best: F16" in result.output
    assert runner.invoke(app, ["recommend", "demo", "--memory", "1GB"]).output == result.output
    result = runner.invoke(app, ["recommend", "demo", "--memory", "0.001"])
    assert isinstance(result.exception, CapacityError)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_resident_bytes_are_the_kernels():
    """As /proc/self/status has them."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert resident_bytes() == pytest.approx(int(lines["VmRSS"].split()[0]) * 1024, rel=0.05)


def test_a_process_that_fails_is_an_error(tmp_path):
    """It says with what."""
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError, match=r"ended with 1: quintet\.errors.ModelFormatError"):
        measure_footprint(tmp_path / "bad.gguf")
