"""Timing a plan's phases, and measuring the machine beside it."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from backends.steps import prefill
from models.tiny import PARITY, make_hf, write_gguf
from quintet._native import measure_int8_peak
from quintet.backends.cpu import CPUExecutor
from quintet.formats.gguf import GGUFFile
from quintet.models import load_model


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    path = folder / "model.gguf"
    write_gguf(PARITY[0], make_hf(PARITY[0], folder), path, gguf.GGMLQuantizationType.F16)
    with GGUFFile.open(path) as source:
        return CPUExecutor(
            load_model(source),
            num_blocks=8,
            max_num_batched_tokens=32,
            max_logits_rows=32,
            weight_dtype="auto",
            kv_dtype="bfloat16",
            num_threads=2,
        )


def run(executor: CPUExecutor) -> np.ndarray:
    return prefill(executor, list(range(5)), [0], chunk=5)


def test_profile_times_every_phase_of_every_step(executor):
    """Each phase is counted once a step, its processor time within its wall time."""
    executor.plan.start_profile()
    for _ in range(3):
        run(executor)
    phases = executor.plan.profile()
    assert phases
    assert all(calls == 3 for _, calls, *_ in phases)
    assert all(work_s > 0 and wait_s >= 0 for _, _, work_s, wait_s, *_ in phases)
    assert sum(p[4] for p in phases) <= sum(p[2] for p in phases) + 0.01
    executor.plan.stop_profile()
    run(executor)
    assert [phase[1] for phase in executor.plan.profile()] == [3] * len(phases)


def test_profile_names_what_a_phase_does(executor):
    """Labels say which row operations and which matrices; a starting profile forgets the last."""
    executor.plan.start_profile()
    phases = executor.plan.profile()
    labels = [phase[0] for phase in phases]
    assert all(calls == 0 for _, calls, *_ in phases)
    assert labels[0].startswith("rows: embed")
    assert any(label.startswith("attention after") for label in labels)
    assert labels[-1].startswith("linear, n x k (bits):")
    assert sum(phase[5] for phase in phases) >= executor.plan.weight_bytes // 2
    executor.plan.stop_profile()


def test_profile_leaves_the_logits_alone(executor):
    """A profiled step computes what any other does, bit for bit."""
    plain = run(executor)
    executor.plan.start_profile()
    timed = run(executor)
    executor.plan.stop_profile()
    assert plain.tobytes() == timed.tobytes()


def test_int8_peak_is_measured():
    """Some arithmetic is done each second; nonsense is refused."""
    assert measure_int8_peak(num_threads=1, seconds=0.01) > 1e8
    with pytest.raises(ValueError, match="num_threads"):
        measure_int8_peak(num_threads=0, seconds=0.01)
