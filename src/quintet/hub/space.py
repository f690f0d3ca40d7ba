"""Whether a model will fit, before it is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from quintet.errors import CapacityError
from quintet.hub import files

# What a running engine takes beside weights and KV cache: code, vocabulary, activations.
ENGINE_BYTES = 256 * 2**20
_RESERVE_BYTES = 2**30
_RESERVE_SHARE = 0.05

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_memory(weight_bytes: int, kv_bytes: int, name: str) -> None:
    """
    Refuse a model that this machine's memory can never hold.

    Args:
        weight_bytes: of its files.
        kv_bytes: of the smallest useful KV cache; 0 where that is not known.

    Raises:
        CapacityError: with the numbers.
    """
    needed = weight_bytes + kv_bytes + ENGINE_BYTES
    total = total_memory_bytes()
    if needed > total:
        raise CapacityError(
            f"{name} needs about {_gb(needed)} of memory ({_gb(weight_bytes)} of weights, "
            f"{_gb(kv_bytes)} of KV cache, {_gb(ENGINE_BYTES)} for the engine); this machine has "
            f"{_gb(total)}. A smaller file of it may fit; --force downloads it all the same",
            resource="memory",
        )


def check_disk(num_bytes: int, folder: Path, name: str) -> None:
    """
    Refuse a download that the disk has no room for, with a little left over.

    Raises:
        CapacityError: with the numbers.
    """
    free = files.free_bytes(folder)
    reserve = min(_RESERVE_BYTES, int(_RESERVE_SHARE * free))
    if num_bytes > free - reserve:
        raise CapacityError(
            f"{name} needs {_gb(num_bytes)} more on the disk of {folder}; {_gb(free)} are free "
            f"there, of which {_gb(reserve)} are kept so",
            resource="disk space",
        )


def total_memory_bytes() -> int:
    """The machine's memory, or its control group's limit where that is less.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, "memory.max".
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
        return min(total, int(limit))
    except (OSError, ValueError):  # no group, or "max"
        return total


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
