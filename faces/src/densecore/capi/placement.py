"""Which CPUs an engine computes on.

Sources: Linux, Documentation/ABI/stable/sysfs-devices-node and sysfs-devices-system-cpu.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from quintet import RequestError

logger = logging.getLogger("densecore")
_SYSTEM = Path("/sys/devices/system")


class Pinning(IntEnum):
    """How threads are placed on the CPUs there are."""

    SCATTER = 0
    COMPACT = 1


def choose_cpus(
    numa_node_id: int, policy: int, num_threads: int, *, system: Path = _SYSTEM
) -> frozenset[int] | None:
    """
    The CPUs for an engine's threads; None for all that this process may use.

    Args:
        numa_node_id: -1 for all nodes; one that is not there is warned of and means the same.
        policy: of Pinning.
        num_threads: that compute; 0 for as many as there are cores.
        system: sysfs' folder of that name.

    Raises:
        RequestError: no such policy, or a number below what it may be.
    """
    if policy not in tuple(Pinning):
        raise RequestError(f"expected 0 or 1, found {policy}", parameter="pinning_policy")
    if numa_node_id < -1:
        raise RequestError(f"expected -1 or a node, found {numa_node_id}", parameter="numa_node_id")
    if num_threads < 0:
        raise RequestError(f"expected a number from 0, found {num_threads}", parameter="threads")
    usable = os.sched_getaffinity(0)
    allowed = usable
    if numa_node_id >= 0:
        allowed = _cpus_of_node(numa_node_id, system) & usable
        if not allowed:
            logger.warning("no NUMA node %d with usable CPUs; using all", numa_node_id)
            allowed = usable
    cores = _cores(sorted(allowed), system)
    if 0 < num_threads < len(allowed):
        allowed = set(_compact(cores, num_threads))
        if policy == Pinning.SCATTER:
            allowed = set(_scattered(cores, num_threads))
    return None if allowed == usable else frozenset(allowed)


def _compact(cores: Sequence[Sequence[int]], count: int) -> list[int]:
    """Neighbours, with all the threads of each core."""
    return [cpu for core in cores for cpu in core][:count]


def _scattered(cores: Sequence[Sequence[int]], count: int) -> list[int]:
    """Cores at even distances; second threads only where there are not enough cores."""
    if count <= len(cores):
        return [cores[i * len(cores) // count][0] for i in range(count)]
    depth = max(map(len, cores))
    return [core[i] for i in range(depth) for core in cores if i < len(core)][:count]


def _cores(cpus: Sequence[int], system: Path) -> list[list[int]]:
    """CPUs by the core they are threads of, cores in the order of package and number."""
    cores: dict[tuple[int, int], list[int]] = {}
    for cpu in cpus:
        topology = system / "cpu" / f"cpu{cpu}" / "topology"
        core = (_number(topology / "physical_package_id", 0), _number(topology / "core_id", cpu))
        cores.setdefault(core, []).append(cpu)
    return [cores[core] for core in sorted(cores)]


def _cpus_of_node(node: int, system: Path) -> set[int]:
    """Of its `cpulist`, such as "0-3,8"; nothing where there is no such node."""
    try:
        text = (system / "node" / f"node{node}" / "cpulist").read_text().strip()
    except OSError:
        return set()
    cpus: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _number(path: Path, default: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return default
