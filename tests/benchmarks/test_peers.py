"""The benchmark against llama.cpp, as far as it goes without llama.cpp."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from peers.cells import CELLS, NUM_NEW_TOKENS, STREAM_PROMPT, Cell, ModelCost
from peers.client import Worker, WorkerError
from peers.models import Shape, synthetic_vocabulary, write_f16
from peers.report import markdown, update_document
from peers.runner import ENGINES, Setup, _alternate, _summary

SHAPE = Shape("qwen3", 2, 64, 128, 4, 2, 32, 1e6, 2048, 600, "qwen2")
COST = ModelCost(weight_bytes=1000, body_weights=800, head_weights=200, kv_bytes_per_token=10)
QUIET = {"foreign_cores": 0.0, "stolen_cores": 0.0, "idle_engine_cores": 0.0, "seconds": 1.0}
MACHINE = {"read_bytes_per_s": 1e6, "int8_macs_per_s": 1e6}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("peers") / "model.gguf"
    write_f16(SHAPE, path, None)
    return path


def worker(log: Path) -> Worker:
    return Worker(Path(sys.executable), "peers.quintet_worker", {}, log)


def round_of(ours: float, theirs: float, *, warm_up: bool = False, **disturbance: float) -> dict:
    figures = {"quintet": QUIET | {"value": ours}, "llama.cpp": QUIET | {"value": theirs}}
    figures["quintet"] |= disturbance
    return {"warm_up": warm_up, "machine": MACHINE, **figures}


def test_synthetic_vocabulary_is_whole():
    """Every token is there once, every merge makes a token, and the size is the asked one."""
    tokens, merges = synthetic_vocabulary(151_936)
    assert len(tokens) == len(set(tokens)) == 151_936
    known = set(tokens)
    assert all(left in known and right in known for left, right in map(str.split, merges))
    assert all(merge.replace(" ", "") in known for merge in merges)
    with pytest.raises(ValueError, match="at most"):
        synthetic_vocabulary(10**6)


def test_worker_measures_every_cell(model, tmp_path):
    """The worker answers each request; what it cannot do is an error, not its end."""
    with worker(tmp_path / "log") as engine:
        loaded = engine.request(
            "load", path=str(model), num_threads=1, context=700, num_streams=3, stream_len=40
        )
        assert len(loaded["logits"]) == 256
        assert 0 < loaded["load_s"] < loaded["seconds"]
        with pytest.raises(WorkerError, match="AttributeError"):
            engine.request("no_such_op")
        assert engine.request("prefill", num_tokens=600)["seconds"] > 0
        assert engine.request("decode", depth=500, num_tokens=4)["seconds"] > 0
        streams = engine.request("streams", num_streams=3, prompt_len=20, num_tokens=20)
        assert streams["seconds"] > 0
        assert engine.request("memory")["peak_bytes"] > 10**7
        assert engine.request("machine", num_threads=1)["read_bytes_per_s"] > 1e8
        engine.request("load_api", path=str(model), num_threads=1, context=64)
        assert engine.request("generate", prompt_len=20, num_tokens=9, seed=1)["seconds"] > 0


def test_worker_that_ends_is_reported(tmp_path):
    """A worker's death while it is waited for is an error that names the log."""
    with worker(tmp_path / "log") as engine, pytest.raises(WorkerError, match="log"):
        engine.request("quit")


def test_model_cost_counts_the_file(model):
    """Weights are those of the matrices; the tied head is read once a step."""
    cost = ModelCost.of(model, SHAPE)
    assert cost.head_weights == 600 * 64
    assert cost.body_weights == 2 * (64 * 128 * 2 + 64 * 64 * 2 + 3 * 64 * 128)
    assert cost.weight_bytes == 2 * (cost.head_weights + cost.body_weights)
    assert cost.kv_bytes_per_token == 2 * 2 * 2 * 32 * 2


def test_bounds_follow_the_cell():
    """A decode reads weights and its own keys and values; a prefill's head computes one row."""
    decode = COST.bytes_per_s(Cell("decode", 100), tokens_per_s=2)
    assert decode == 2 * (1000 + (100 + NUM_NEW_TOKENS / 2) * 10)
    streams = COST.bytes_per_s(Cell("streams", 4), tokens_per_s=8)
    assert streams == 2 * (1000 + 4 * (STREAM_PROMPT + NUM_NEW_TOKENS / 2) * 10)
    assert COST.macs_per_s(Cell("prefill", 100), tokens_per_s=3) == 3 * (800 + 200 / 100)
    assert COST.bytes_per_s(Cell("prefill", 100), 1) is None
    assert COST.macs_per_s(Cell("load"), 1) is None


def test_rounds_flip_the_order():
    """Who goes first changes from round to round, and the first round does not count."""
    setup = Setup({}, {}, Path("log"), num_threads=1, num_rounds=3)
    asked = []

    def measure(engine: str) -> dict[str, float]:
        asked.append(engine)
        return {"seconds": 1.0, "value": 1.0}

    rounds = list(_alternate(setup, measure, lambda: MACHINE, {}))
    assert [outcome["warm_up"] for outcome in rounds] == [True, False, False, False]
    assert asked == [*ENGINES, *ENGINES[::-1]] * 2
    assert all(a["order"] != b["order"] for a, b in pairwise(rounds))


def test_summary_takes_medians_of_counted_rounds():
    """The ratio is the median of each round's own; the warm-up is left out."""
    rounds = [
        round_of(999, 1, warm_up=True),
        round_of(10, 5),
        round_of(20, 4),
        round_of(30, 10),
    ]
    result = _summary(Cell("decode", 0), rounds, COST)
    assert result["quintet"]["value"] == 20
    assert result["llama.cpp"]["value"] == 5
    assert result["ratio"] == 3
    assert result["quintet"]["of_read_bandwidth"] == 20 * (1000 + NUM_NEW_TOKENS / 2 * 10) / 1e6
    assert not result["quintet"]["disturbed"]


@pytest.mark.parametrize("who", ["foreign_cores", "stolen_cores", "idle_engine_cores"])
def test_summary_marks_disturbed_figures(who):
    """A figure with company is marked, whoever the company was, and the other engine's is not."""
    result = _summary(CELLS[2], [round_of(1, 1), round_of(1, 1, **{who: 0.5})], COST)
    assert result["quintet"]["disturbed"]
    assert not result["llama.cpp"]["disturbed"]


def test_summary_survives_an_engine_that_fails():
    """A cell that one engine cannot do has no ratio and is shown as failed."""
    failed = {"warm_up": False, "machine": MACHINE, "quintet": QUIET | {"value": 5.0}}
    result = _summary(CELLS[2], [failed | {"llama.cpp": {"error": "no"}}], COST)
    assert result["ratio"] is None
    report = {
        "machine": {"cpu": "CPU", "system": "Linux", "memory_bytes": 2**30},
        "cpu_identity": "family 1",
        "num_threads": 2,
        "num_rounds": 1,
        "date": "2026-01-01",
        "isa": "native",
        "peer_flags": "-DX",
        "versions": {},
        "kernels": {},
        "results": [{"model": "m", "format": "Q4_0", "cells": [result]}],
    }
    assert "| prefill-512 | tokens/s | 5.00 | failed |" in markdown(report)


def test_document_is_updated_between_its_marks(tmp_path):
    """Only what lies between the marks is replaced; without marks nothing is written."""
    document = tmp_path / "performance.md"
    begin, end = "<!-- bench-peers avx512: begin -->", "<!-- bench-peers avx512: end -->"
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    report = {
        "machine": {"cpu": "CPU", "system": "Linux", "memory_bytes": 2**30},
        "cpu_identity": "family 1",
        "num_threads": 2,
        "num_rounds": 1,
        "date": "2026-01-01",
        "isa": "native",
        "peer_flags": "-DX",
        "versions": {},
        "kernels": {"quintet": "avx512"},
        "results": [{"model": "m", "format": "BF16", "error": "why"}],
    }
    update_document(document, report, Path("../results/x"))
    text = document.read_text()
    assert text.startswith(f"before\n{begin}\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "Not measured: why" in text
    assert "old" not in text
    assert "../results/x.svg" in text
    with pytest.raises(ValueError, match="marks"):
        update_document(document, report | {"kernels": {"quintet": "avx2"}}, Path("x"))
