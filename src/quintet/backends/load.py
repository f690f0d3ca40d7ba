"""Choosing and loading a backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from quintet.backends._packing import WeightDtype
from quintet.backends.base import BLOCK_SIZE, Executor
from quintet.backends.cpu import CPUExecutor, KVDtype, cpu_memory
from quintet.backends.reference import ReferenceExecutor
from quintet.errors import RequestError
from quintet.models import Model

Backend: TypeAlias = Literal["auto", "cpu", "reference"]
_VALUE_BYTES: dict[KVDtype, int] = {"bfloat16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = 4  # int8 has one per token and head, and heads padded to a multiple of 4


def resolve_kv_dtype(weight_dtype: WeightDtype, kv_dtype: Literal["auto"] | KVDtype) -> KVDtype:
    """bfloat16 unless asked otherwise; a model run in float32 keeps its cache in float32."""
    if kv_dtype != "auto":
        return kv_dtype
    return "float32" if weight_dtype == "float32" else "bfloat16"


def block_bytes(model: Model, kv_dtype: KVDtype) -> int:
    """Bytes of one KV block of this model: k and v of BLOCK_SIZE tokens in every layer."""
    cache = model.program.cache
    head_bytes = cache.head_dim * _VALUE_BYTES[kv_dtype]
    if kv_dtype == "int8":
        head_bytes = -(-cache.head_dim // 4) * 4 + _SCALE_BYTES
    return cache.num_layers * 2 * cache.num_kv_heads * BLOCK_SIZE * head_bytes


def load_executor(
    model: Model,
    *,
    num_blocks: int,
    max_num_batched_tokens: int,
    max_logits_rows: int,
    backend: Backend = "auto",
    weight_dtype: WeightDtype = "auto",
    kv_dtype: Literal["auto"] | KVDtype = "auto",
    num_threads: int | None = None,
    use_mlock: bool = False,
    packed_cache: Path | None = None,
    on_compiled: Callable[[], None] | None = None,
) -> Executor:
    """Load a model on a backend.

    Args:
        num_blocks: KV blocks of BLOCK_SIZE tokens.
        max_num_batched_tokens: new tokens one step may carry.
        max_logits_rows: rows one step may ask logits for.
        backend: "auto" is "cpu"; "reference" is NumPy, slow and exact, for tests.
        weight_dtype: "auto" keeps the file's own types.
        kv_dtype: see `resolve_kv_dtype`.
        num_threads: None for one per physical core this process may use.
        use_mlock, packed_cache, on_compiled: see `CPUExecutor`; the reference backend never
            calls the last.

    Raises:
        RequestError: the reference backend was asked for anything but float32, or for what only
            packed weights have.
        MemoryError: weights or cache do not fit.
        CapacityError: the weights may not be locked in memory.
    """
    if not model.program.is_causal and kv_dtype == "auto":
        kv_dtype = "float32"  # it holds a step's tokens only, so that there is little to save
    resolved = resolve_kv_dtype(weight_dtype, kv_dtype)
    if backend == "reference":
        if weight_dtype not in ("auto", "float32") or kv_dtype in ("bfloat16", "int8"):
            raise RequestError("the reference backend computes in float32", parameter="dtype")
        if use_mlock or packed_cache is not None:
            parameter = "use_mlock" if use_mlock else "packed_cache"
            raise RequestError("the reference backend packs no weights", parameter=parameter)
        return ReferenceExecutor(
            model, num_blocks=num_blocks, max_num_batched_tokens=max_num_batched_tokens
        )
    return CPUExecutor(
        model,
        num_blocks=num_blocks,
        max_num_batched_tokens=max_num_batched_tokens,
        max_logits_rows=max_logits_rows,
        weight_dtype=weight_dtype,
        kv_dtype=resolved,
        num_threads=num_threads,
        use_mlock=use_mlock,
        packed_cache=packed_cache,
        on_compiled=on_compiled,
    )


def executor_memory(
    model: Model,
    *,
    max_num_batched_tokens: int,
    max_logits_rows: int,
    backend: Backend = "auto",
    weight_dtype: WeightDtype = "auto",
) -> tuple[int, int]:
    """Bytes that `load_executor` takes for weights and for buffers, beside those of the cache.

    Those of buffers are the most that the largest step touches.
    """
    if backend == "reference":
        sizes = (math.prod(model.weights.tensors[name].shape) for name in model.program.weights)
        return 4 * sum(sizes), 0
    return cpu_memory(
        model,
        max_num_batched_tokens=max_num_batched_tokens,
        max_logits_rows=max_logits_rows,
        weight_dtype=weight_dtype,
    )
