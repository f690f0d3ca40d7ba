"""Predicted memory, against a process that runs the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.encoders import ENCODERS, make_encoder
from quintet.cli.app import app
from quintet.errors import (
    ContextLengthError,
    EngineError,
    ModelNotFoundError,
    RequestError,
    UnsupportedModelError,
)
from quintet.hub.packaged import packaged_models
from quintet.tools.estimate import CANDIDATES, estimate, recommend
from quintet.tools.footprint import measure_footprint, resident_bytes
from quintet.tools.quantize import quantize

# Fills the cache of every sequence, then reads the kernel's own account of the process.
RUN = """
import sys
from quintet import LLM, SamplingParams
path, context, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llm = LLM(path, max_model_len=context, max_num_seqs=batch)
prompts = [[(7 * i + 3 * j) % 2000 for i in range(context - 4)] for j in range(batch)]
llm.generate(prompts, SamplingParams(max_tokens=4, ignore_eos=True))
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(lines["VmRSS"].split()[0]) * 1024)
"""


@pytest.fixture(scope="module")
def demo() -> Path:
    return Path(packaged_models()["demo"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("context", "batch"), [(256, 1), (2048, 3)])
def test_memory_is_what_a_process_takes_within_5_percent(context, batch, demo):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(demo), str(context), str(batch)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = estimate(demo, context=context, batch=batch)
    assert found.total_bytes == pytest.approx(int(done.stdout), rel=0.05)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_resident_bytes_are_the_kernels():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert resident_bytes() == pytest.approx(int(lines["VmRSS"].split()[0]) * 1024, rel=0.05)


def test_the_cache_grows_with_context_batch_and_type(demo, monkeypatch):
    monkeypatch.setattr("quintet.tools.estimate.measure_footprint", lambda path: 50_000_000)
    one = estimate(demo, context=512)
    # 5 layers, k and v, 2 heads of 64, 2 bytes each
    assert one.kv_bytes == 512 * 5 * 2 * 2 * 64 * 2
    assert estimate(demo, context=1024, batch=3).kv_bytes == 6 * one.kv_bytes
    assert estimate(demo, context=512, kv_dtype="float32").kv_bytes == 2 * one.kv_bytes
    assert estimate(demo).context == 2048
    assert one.process_bytes == 50_000_000
    assert one.total_bytes == sum(
        (one.weight_bytes, one.kv_bytes, one.buffer_bytes, one.process_bytes)
    )


def test_a_recommended_file_takes_what_was_predicted(demo, tmp_path, monkeypatch):
    monkeypatch.setattr("quintet.tools.estimate.measure_footprint", lambda path: 50_000_000)
    found = recommend(demo, 10**9, context=256)
    assert found.best is found.options[0]
    assert found.best.type is None
    assert [option.type for option in found.options[1:]] == list(CANDIDATES[2:])
    sizes = [option.file_bytes for option in found.options]
    assert sizes == sorted(sizes, reverse=True)
    by_type = {option.type: option for option in found.options}
    for name in ("Q4_K_M", "Q2_K"):
        path = tmp_path / f"{name}.gguf"
        quantize(demo, path, name)
        assert by_type[name].file_bytes == path.stat().st_size
        assert by_type[name].estimate == estimate(path, context=256)
    # Budgets between two types give the larger that fits.
    least = by_type["Q4_K_M"].estimate.total_bytes
    assert recommend(demo, least, context=256).best == by_type["Q4_K_M"]
    assert recommend(demo, least - 1, context=256).best == by_type["Q4_K_S"]
    assert recommend(demo, 1000, context=256).best is None


def test_the_commands(demo, monkeypatch):
    monkeypatch.setattr("quintet.tools.estimate.measure_footprint", lambda path: 50_000_000)
    runner = CliRunner()
    shown = runner.invoke(app, ["estimate", str(demo), "--context", "512", "--json"])
    assert json.loads(shown.output)["total_bytes"] == estimate(demo, context=512).total_bytes
    shown = runner.invoke(app, ["estimate", str(demo), "--context", "512", "--batch", "2"])
    assert "2 x 512 tokens" in shown.output
    shown = runner.invoke(app, ["inspect", str(demo), "--estimate", "--json"])
    assert json.loads(shown.output)["estimate"]["total_bytes"] == estimate(demo).total_bytes
    assert "1 x 2048 tokens" in runner.invoke(app, ["inspect", str(demo), "--estimate"]).output
    arguments = ["recommend", str(demo), "--context", "512", "--memory"]
    shown = runner.invoke(app, [*arguments, "1GiB"])
    assert "as it is" in shown.output
    assert "<- best" in shown.output
    shown = runner.invoke(app, [*arguments, "1GiB", "--json"])
    assert json.loads(shown.output)["best"] == "as it is"
    shown = runner.invoke(app, [*arguments, "1MB"])
    assert shown.exit_code == 1
    assert "no quantisation fits in 1 MB" in str(shown.exception)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"context": 0}, RequestError),
        ({"context": 4096}, ContextLengthError),
        ({"batch": 0}, RequestError),
        ({"max_num_batched_tokens": 0}, RequestError),
    ],
)
def test_refusals(options, error, demo):
    with pytest.raises(error) as caught:
        estimate(demo, **options)
    assert caught.value.parameter == next(iter(options))


def test_no_model_no_estimate(demo, tmp_path):
    with pytest.raises(ModelNotFoundError):
        estimate(tmp_path / "none.gguf")
    with pytest.raises(RequestError, match="at least 1 byte"):
        recommend(demo, 0)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError, match="ended with 1"):
        measure_footprint(tmp_path / "bad.gguf")


def test_encoders_are_refused(tmp_path):
    make_encoder(ENCODERS[0], tmp_path)
    with pytest.raises(UnsupportedModelError, match="writes no text"):
        estimate(tmp_path)
