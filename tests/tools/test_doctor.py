"""What doctor finds, against what the system says."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from quintet import _native
from quintet.cli.app import app
from quintet.tools.doctor import diagnose, problems_of
from quintet.tools.machine import describe_machine


def test_the_machine_is_described():
    """Threads, processors, memory and kernels agree with their sources."""
    machine = describe_machine()
    assert machine.num_usable_cpus == len(os.sched_getaffinity(0))
    assert 1 <= machine.num_threads <= machine.num_usable_cpus
    assert machine.kernels == _native.kernels_info()["active"]
    assert machine.kernels in machine.available_kernels
    assert machine.memory_bytes > 2**28
    assert machine.cpu


def test_bandwidth_is_measured():
    """The measured bandwidth is that of memory, not of a clock."""
    assert 1e8 < diagnose().read_bandwidth < 1e13


def test_problems_are_named(monkeypatch: pytest.MonkeyPatch):
    """Slow choices and impossible ones are said; a good machine has nothing to say."""
    machine = replace(
        describe_machine(),
        kernels="fast",
        available_kernels=("reference", "fast"),
        num_threads=8,
        num_usable_cpus=16,
    )
    monkeypatch.setenv("QUINTET_KERNELS", "reference")
    assert problems_of(machine) == []
    (slow,) = problems_of(replace(machine, kernels="reference"))
    assert "fast kernels off" in slow
    (impossible,) = problems_of(replace(machine, kernels="none"))
    assert "cannot run here" in impossible
    (plain,) = problems_of(replace(machine, kernels="reference", available_kernels=("reference",)))
    assert "slow" in plain
    (quota,) = problems_of(replace(machine, num_threads=2))
    assert "quota" in quota


def test_doctor_prints_what_it_found():
    """The command shows each finding by name."""
    output = CliRunner().invoke(app, ["doctor"]).output
    for name in ("CPU", "CPU features", "threads", "memory", "kernels", "read bandwidth"):
        assert any(line.startswith(name) for line in output.splitlines()), name
    assert "GB/s" in output
