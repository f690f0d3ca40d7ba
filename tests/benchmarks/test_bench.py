"""The overheads benchmark measures what it says, on a model smaller still."""

from __future__ import annotations

import bench
import pytest
from peers.models import Shape, write_f16


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.gguf"
    write_f16(Shape("qwen3", 2, 64, 128, 4, 2, 32, 1e6, 2048, 600, "qwen2"), path, None)
    with bench.small_model(path) as loaded:
        yield loaded


def test_engine_loop_is_measured(model):
    """Steps of several rows take some time outside the native call, and far from a second."""
    line = bench.engine_loop(model, batch_size=3, num_new=24)
    assert line.unit == "us"
    assert 0 < line.value < 1e6
    assert not model.engine.has_work


def test_calls_are_measured_to_the_first_kernel(model):
    """Both ways in reach a kernel, after they were called and soon."""
    (direct,) = bench.call_overhead(model)
    (through_engine,) = bench.user_call_overhead(model)
    assert 0 < direct.value < 1e6
    assert 0 < through_engine.value < 1e6


def test_sampling_is_measured_for_each_budget():
    """A row takes some time, and far from a second, for every budget there is."""
    lines = list(bench.sampling())
    assert [line.budget for line in lines] == list(bench.SAMPLING_BUDGETS_MS.values())
    assert all(0 < line.value < 1e3 for line in lines)
