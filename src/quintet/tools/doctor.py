"""Whether Quintet runs well on this machine: what it found, and what it measured."""

from __future__ import annotations

import os
from dataclasses import dataclass

from quintet import _native
from quintet.tools.machine import Machine, describe_machine

_MEASURE_S = 0.5


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """
    The machine, its measured speed and what stands in the way of more.

    Args:
        machine: see `Machine`.
        read_bandwidth: bytes per second that all threads read from memory together, which
            bounds the tokens per second of one sequence: each token reads every weight once.
        problems: what makes Quintet fail or slow here, in words; empty where all is well.
    """

    machine: Machine
    read_bandwidth: float
    problems: tuple[str, ...]


def diagnose() -> Diagnosis:
    """Look at the machine and measure it; takes about a second, and up to 1 GiB meanwhile."""
    machine = describe_machine()
    bandwidth = _native.measure_read_bandwidth(num_threads=machine.num_threads, seconds=_MEASURE_S)
    return Diagnosis(machine, bandwidth, tuple(problems_of(machine)))


def problems_of(machine: Machine) -> list[str]:
    """What makes Quintet fail or slow on such a machine, in words."""
    problems = []
    wanted = os.environ.get("QUINTET_KERNELS")
    if machine.kernels == "none":
        problems.append(
            f"QUINTET_KERNELS={wanted} cannot run here; "
            f"available: {', '.join(machine.available_kernels)}"
        )
    elif machine.kernels != machine.available_kernels[-1]:
        problems.append(
            f"QUINTET_KERNELS={wanted} keeps the faster {machine.available_kernels[-1]} kernels off"
        )
    elif machine.kernels == "reference":
        problems.append("no vector kernels fit this CPU; the plain ones are slow")
    if machine.num_threads < machine.num_usable_cpus // 2:
        problems.append(
            f"a CPU quota allows {machine.num_threads} threads "
            f"where {machine.num_usable_cpus} processors are visible"
        )
    return problems
