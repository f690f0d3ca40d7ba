"""The quantisation benchmark runs without its peer."""

from __future__ import annotations

import sys

import bench_quantize


def test_it_measures_a_small_model(monkeypatch, capsys):
    """Time and speed of every round, on a model smaller still."""
    arguments = ["--layers", "1", "--hidden", "256", "--rounds", "2", "--type", "Q4_0"]
    monkeypatch.setattr(sys, "argv", ["bench_quantize.py", *arguments])
    monkeypatch.delenv("QUINTET_PEER_PYTHON", raising=False)
    bench_quantize.main()
    shown = capsys.readouterr().out
    assert "million weights/s" in shown
    assert "llama.cpp" not in shown
