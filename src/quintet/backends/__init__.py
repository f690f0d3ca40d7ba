"""Executors of the op program: reference (NumPy), cpu (native).  May import models and below."""

from quintet.backends.base import BLOCK_SIZE, Executor, StepInput
from quintet.backends.load import block_bytes, load_executor, resolve_kv_dtype

__all__ = [
    "BLOCK_SIZE",
    "Executor",
    "StepInput",
    "block_bytes",
    "load_executor",
    "resolve_kv_dtype",
]
