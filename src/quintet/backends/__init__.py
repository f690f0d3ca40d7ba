"""Executors of the op program: reference (NumPy), cpu (native).  May import models and below."""

from quintet.backends._packed_cache import default_cache_directory
from quintet.backends.base import BLOCK_SIZE, Executor, StepInput
from quintet.backends.load import block_bytes, executor_memory, load_executor, resolve_kv_dtype

__all__ = [
    "BLOCK_SIZE",
    "Executor",
    "StepInput",
    "block_bytes",
    "default_cache_directory",
    "executor_memory",
    "load_executor",
    "resolve_kv_dtype",
]
