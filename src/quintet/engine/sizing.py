"""How large the KV cache is to be, and how long a sequence may grow in it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from quintet.backends.base import BLOCK_SIZE
from quintet.config import EngineConfig
from quintet.errors import CapacityError, RequestError

logger = logging.getLogger(__name__)

_MAX_BLOCKS = (2**31 - 1) // BLOCK_SIZE  # slots are int32
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class CachePlan:
    """
    The outcome.

    Args:
        num_blocks: KV blocks of BLOCK_SIZE tokens.
        max_model_len: tokens of prompt and answer together; always fits the blocks.
    """

    num_blocks: int
    max_model_len: int


def plan_cache(
    config: EngineConfig,
    *,
    context_length: int,
    block_bytes: int,
    weight_bytes: int,
    available_bytes: int,
    max_memory: int | None = None,
    buffer_bytes: int = 0,
) -> CachePlan:
    """
    Size the KV cache.

    Args:
        config: what the user decided.
        context_length: tokens the model was trained for.
        block_bytes: of one KV block.
        weight_bytes: still to be loaded, so not available to the cache.
        available_bytes: of memory, now.
        max_memory: bytes that weights, cache and buffers may take together.  The cache gets what
            the others leave, unless `kv_cache_bytes` says how much.
        buffer_bytes: of intermediate results.

    Raises:
        RequestError: `max_model_len` beyond what the model was trained for.
        CapacityError: `max_model_len` was asked for and the cache cannot hold it, the cache would
            hold nothing, or `max_memory` does not hold it all; says how many bytes are needed.
    """
    wanted_len = config.max_model_len or context_length
    if wanted_len > context_length:
        raise RequestError(
            f"expected at most {context_length}, the context the model was trained for, "
            f"found {wanted_len}",
            parameter="max_model_len",
        )
    wanted_blocks = -(-wanted_len // BLOCK_SIZE)
    if config.num_kv_blocks is not None:
        num_blocks = config.num_kv_blocks
        cache_bytes = num_blocks * block_bytes
    elif config.kv_cache_bytes is not None:
        cache_bytes = config.kv_cache_bytes
        num_blocks = cache_bytes // block_bytes
    else:
        cache_bytes = max(0, available_bytes - weight_bytes)
        # Who sets a limit has thought of the other programs; else they keep most of the memory.
        cache_bytes = cache_bytes // 4 if max_memory is None else cache_bytes
        if max_memory is not None:
            cache_bytes = min(cache_bytes, max(0, max_memory - weight_bytes - buffer_bytes))
        num_blocks = min(cache_bytes // block_bytes, config.max_num_seqs * wanted_blocks)
    num_blocks = min(num_blocks, _MAX_BLOCKS)

    if max_memory is not None:
        # As much as was asked for, or else as little as is of use.
        least_blocks = wanted_blocks if config.max_model_len is not None else 1
        least_blocks = least_blocks if config.kv_cache_bytes is None else num_blocks
        check_limit(
            max_memory,
            weight_bytes=weight_bytes,
            buffer_bytes=buffer_bytes,
            cache_bytes=block_bytes * least_blocks,
        )
    max_model_len = min(wanted_len, num_blocks * BLOCK_SIZE)
    if max_model_len < (2 if config.max_model_len is None else wanted_len):
        raise CapacityError(
            f"a context of {wanted_len} tokens needs a KV cache of "
            f"{wanted_blocks * block_bytes} bytes, {cache_bytes} are to be had; "
            "set max_model_len or kv_cache_bytes",
            resource="KV cache",
        )
    if max_model_len < wanted_len:
        logger.warning(
            "The context is limited to %d of the model's %d tokens: the KV cache has %d bytes, "
            "a full context needs %d. Set kv_cache_bytes to change that.",
            max_model_len,
            wanted_len,
            num_blocks * block_bytes,
            wanted_blocks * block_bytes,
        )
    return CachePlan(num_blocks, max_model_len)


def plan_encoder(config: EngineConfig, context_length: int) -> CachePlan:
    """
    The cache of a model that sees a text whole, which holds the texts of one pass: as many as
    `max_num_batched_tokens` says, or a single one of any length.

    Args:
        config: what the user decided.
        context_length: tokens the model was trained for.

    Raises:
        RequestError: `max_model_len` beyond what the model was trained for.
    """
    max_model_len = config.max_model_len or context_length
    if max_model_len > context_length:
        raise RequestError(
            f"expected at most {context_length}, the context the model was trained for, "
            f"found {max_model_len}",
            parameter="max_model_len",
        )
    num_tokens = max(config.max_num_batched_tokens, max_model_len)
    # Each text has blocks of its own: twice over, short texts fill a pass as well.
    return CachePlan(2 * -(-num_tokens // BLOCK_SIZE), max_model_len)


def check_limit(max_memory: int, *, weight_bytes: int, buffer_bytes: int, cache_bytes: int) -> None:
    """
    Refuse what a limit does not hold.

    Raises:
        CapacityError: with the bytes of each part.
    """
    needed = weight_bytes + buffer_bytes + cache_bytes
    if needed > max_memory:
        raise CapacityError(
            f"max_memory: expected at least {needed} bytes ({weight_bytes} of weights, "
            f"{buffer_bytes} of buffers, {cache_bytes} of KV cache), found {max_memory}",
            resource="memory",
        )


def available_memory_bytes() -> int:
    """Memory this process may still take: the system's, or its control group's where less."""
    return min(_system_available(), _cgroup_available())


def resident_bytes() -> int:
    """Main memory this process has now; 0 where the system does not say.

    Source: Linux, proc_pid_statm(5).
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _system_available() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # No such file outside Linux; half of what is built in is a guess that leaves room.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cgroup_available() -> int:
    """Source: Linux, Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files"."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return _MAX_BYTES
    if limit == "max":
        return _MAX_BYTES
    # The page cache counts as used and is given up when asked for.
    return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))


_MAX_BYTES = 2**63 - 1
