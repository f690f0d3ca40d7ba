"""How large the KV cache is to be, and how long a sequence may grow in it."""

from __future__ import annotations

import dataclasses
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
) -> CachePlan:
    """
    Size the KV cache.

    Args:
        config: what the user decided.
        context_length: tokens the model was trained for.
        block_bytes: of one KV block.
        weight_bytes: still to be loaded, so not available to the cache.
        available_bytes: of memory, now.

    Raises:
        RequestError: `max_model_len` beyond what the model was trained for.
        CapacityError: `max_model_len` was asked for and the cache cannot hold it, or the
            cache would hold nothing; says how many bytes are needed.
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
        cache_bytes = max(0, available_bytes - weight_bytes) // 4
        num_blocks = min(cache_bytes // block_bytes, config.max_num_seqs * wanted_blocks)
    num_blocks = min(num_blocks, _MAX_BLOCKS)

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


def plan_encoder(config: EngineConfig, context_length: int) -> tuple[CachePlan, EngineConfig]:
    """
    The cache of a model that sees a text whole, which holds the texts of one pass.

    Args:
        config: what the user decided.
        context_length: tokens the model was trained for.

    Returns:
        The cache, and the config with passes that take the longest text.

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
    blocks = CachePlan(2 * -(-num_tokens // BLOCK_SIZE), max_model_len)
    return blocks, dataclasses.replace(config, max_num_batched_tokens=num_tokens)


def available_memory_bytes() -> int:
    """Memory this process may still take: the system's, or its control group's where less."""
    return min(_system_available(), _cgroup_available())


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
