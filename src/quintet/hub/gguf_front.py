"""What the first bytes of a GGUF file say about the memory it will need.

Source: docs/gguf.md of ggml-org/ggml, "Standardized key-value pairs".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quintet.errors import ModelFormatError
from quintet.formats.byte_reader import ByteReader
from quintet.formats.gguf_header import MAGIC, VERSIONS
from quintet.formats.gguf_metadata import read_metadata

FRONT_BYTES = 64 * 1024  # files name their sizes first; vocabularies follow
MIN_CONTEXT = 4096  # a cache for less is of little use
_KV_BYTES = 2  # of a key's or a value's number, as float16
_MAX_NUMBER = 2**24


def kv_cache_bytes(front: bytes) -> int:
    """
    The KV cache for one sequence of MIN_CONTEXT tokens, or of fewer where the model has fewer.

    Args:
        front: the first bytes of the file, at most.

    Returns:
        0 where the bytes do not say it.
    """
    found = _metadata(front)
    architecture = found.get("general.architecture")

    def number(key: str) -> int | None:
        value = found.get(f"{architecture}.{key}")
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return value if 0 < value <= _MAX_NUMBER else None

    num_layers, num_heads = number("block_count"), number("attention.head_count")
    hidden_size, context = number("embedding_length"), number("context_length")
    if not (num_layers and num_heads and hidden_size and context):
        return 0
    num_kv_heads = number("attention.head_count_kv") or num_heads
    head_dim = hidden_size // num_heads
    key_dim = number("attention.key_length") or head_dim
    value_dim = number("attention.value_length") or head_dim
    per_token = num_layers * num_kv_heads * (key_dim + value_dim) * _KV_BYTES
    return per_token * min(context, MIN_CONTEXT)


def _metadata(front: bytes) -> dict[str, Any]:
    """The pairs that are whole; what follows the first that is not stays unread."""
    reader = ByteReader(
        np.frombuffer(front, dtype=np.uint8), path="the file's front", max_bytes=FRONT_BYTES
    )
    found: dict[str, Any] = {}
    try:
        if reader.take(len(MAGIC), "magic").tobytes() != MAGIC:
            return found
        if reader.u32("version") not in VERSIONS:
            return found
        reader.u64("tensor count")
        for _ in range(min(reader.u64("metadata count"), FRONT_BYTES)):
            found.update(read_metadata(reader, 1)[0])
    except ModelFormatError:  # where the front ends, or what the loader will refuse
        return found
    return found
