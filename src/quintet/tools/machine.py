"""What this machine is, as far as it matters for speed: for `doctor`, and beside every figure."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quintet import __version__, _native

# What the kernels ask for, by the names Linux gives it on x86-64 and on arm64.
_FEATURES = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """
    The machine and what Quintet makes of it.

    Args:
        cpu: its model name, as the system gives it.
        features: of the instruction set, those the kernels could use.
        num_logical_cpus: those of the machine.
        num_usable_cpus: those this process may run on.
        num_threads: those Quintet would compute with.
        memory_bytes: main memory, 0 where the system does not say.
        kernels: the kernel table in use.
        available_kernels: all that this machine can run, slowest first.
        system, python, quintet: versions.
    """

    cpu: str
    features: tuple[str, ...]
    num_logical_cpus: int
    num_usable_cpus: int
    num_threads: int
    memory_bytes: int
    kernels: str
    available_kernels: tuple[str, ...]
    system: str
    python: str
    quintet: str


def describe_machine() -> Machine:
    """Look at this machine."""
    cpuinfo = _cpuinfo()
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    kernels: dict[str, Any] = _native.kernels_info()
    return Machine(
        cpu=cpuinfo.get("model name") or platform.processor() or platform.machine(),
        features=tuple(name for name in _FEATURES if name in flags),
        num_logical_cpus=os.cpu_count() or 1,
        num_usable_cpus=len(os.sched_getaffinity(0)),
        num_threads=_native.default_num_threads(),
        memory_bytes=_memory_bytes(),
        kernels=kernels["active"] or "none",
        available_kernels=tuple(kernels["available"]),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        quintet=__version__,
    )


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; nothing where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0
