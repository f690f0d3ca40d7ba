"""The cpu backend: a program compiled to a native plan; a step is one call without the GIL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from quintet._native import Plan, default_num_threads
from quintet.backends._lowering import lower
from quintet.backends._observing import Observed, rows_of_experts
from quintet.backends._packed_cache import PackedCache
from quintet.backends._packing import PackedWeights, WeightDtype
from quintet.backends.base import Float32Array, Int32Array, Observer, StepInput, Threads
from quintet.models import Model

KVDtype: TypeAlias = Literal["bfloat16", "float32", "int8"]

# Below this a step's phases are so short that meeting at their barriers costs more than a second
# thread brings, and far more when another process has its core: 10 MB are some 0.3 ms of reading.
BYTES_PER_THREAD = 10_000_000


class CPUExecutor:
    """Runs a program on the native kernels.  See `quintet.backends.base.Executor`.

    Args:
        model: what to run; its weights are packed here, once.
        num_blocks: KV blocks of BLOCK_SIZE tokens.
        max_num_batched_tokens: new tokens one step may carry.
        max_logits_rows: rows one step may ask logits for.
        weight_dtype: see `quintet.backends._packing.choose_layout`.
        kv_dtype: of the KV cache; int8 has a scale per token and head.
        num_threads: None for one per physical core this process may use, and no more than
            one per BYTES_PER_THREAD of weights.
        kernels: a kernel table by name; None for the fastest, or $QUINTET_KERNELS.
        use_mlock: keep the packed weights in physical memory.
        packed_cache: a directory that keeps packed weights, and gives them to the next start.
        observed: whether `run_observed` shows what a weight is given; by name.
        on_compiled: called when what is left, reading weights, hardly needs the interpreter.

    Raises:
        ValueError: kernels that this CPU cannot run.
        MemoryError: weights, cache or buffers do not fit.
        CapacityError: the weights may not be locked in memory.
    """

    def __init__(
        self,
        model: Model,
        *,
        num_blocks: int,
        max_num_batched_tokens: int,
        max_logits_rows: int,
        weight_dtype: WeightDtype,
        kv_dtype: KVDtype,
        num_threads: int | None = None,
        kernels: str | None = None,
        use_mlock: bool = False,
        packed_cache: Path | None = None,
        observed: Callable[[str], bool] | None = None,
        on_compiled: Callable[[], None] | None = None,
    ) -> None:
        plan, weights, self._observations = _compile(
            model,
            num_blocks=num_blocks,
            max_num_batched_tokens=max_num_batched_tokens,
            max_logits_rows=max_logits_rows,
            weight_dtype=weight_dtype,
            kv_dtype=kv_dtype,
            num_threads=num_threads or _threads_worth_waking(model),
            kernels=kernels or "",
            observed=observed,
        )
        cache = None
        if packed_cache is not None:
            cache = PackedCache(packed_cache, model.weights.identity)
        if on_compiled is not None:
            on_compiled()
        weights.load(cache, lock=use_mlock)
        self.num_blocks = num_blocks
        self.vocab_size = model.program.output.width
        self.hidden_size = model.program.hidden.width
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_logits_rows = max_logits_rows
        self._plan: Plan | None = plan

    @property
    def plan(self) -> Plan:
        """The native plan, for its figures: kernels, num_threads, weight_bytes, cache_bytes."""
        if self._plan is None:
            raise ValueError("the executor is closed")
        return self._plan

    @property
    def threads(self) -> Threads:
        """What the steps run on."""
        return self.plan.threads

    def run(self, step: StepInput) -> Float32Array:
        """Execute one step: see `quintet.backends.base.Executor.run`."""
        return self.plan.run(*_arrays(step), step.token_types)

    def run_hidden(self, step: StepInput) -> Float32Array:
        """Execute one step: see `quintet.backends.base.Executor.run_hidden`."""
        rows = np.empty((len(step.logits_rows), self.hidden_size), np.float32)
        self.plan.run_hidden(*_arrays(step), rows, step.token_types)
        return rows

    def run_observed(self, step: StepInput, observer: Observer) -> None:
        """Execute one step: see `quintet.backends.base.ObservedExecutor.run_observed`."""

        def show(
            observation: int,
            rows: Float32Array,
            visits: Int32Array | None = None,
            begins: Int32Array | None = None,
            inner: Float32Array | None = None,
        ) -> None:
            found = self._observations[observation]
            if visits is None or begins is None or inner is None:
                observer(found.weights, 0, rows)
                return
            for weights, expert, given in rows_of_experts(found, rows, visits, begins, inner):
                observer(weights, expert, given)

        self.plan.run_observed(*_arrays(step), step.token_types, show)

    def close(self) -> None:
        """Free weights and cache."""
        self._plan = None


_Arrays: TypeAlias = tuple[
    Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array
]


def _arrays(step: StepInput) -> _Arrays:
    """What every run of the plan begins with."""
    return (
        step.token_ids,
        step.positions,
        step.cu_seqlens,
        step.slot_mapping,
        step.block_tables,
        step.seq_lens,
        step.logits_rows,
    )


def cpu_memory(
    model: Model, *, max_num_batched_tokens: int, max_logits_rows: int, weight_dtype: WeightDtype
) -> tuple[int, int]:
    """Bytes that an executor of the model takes for packed weights and, at most, for buffers.

    The plan says so itself: it is compiled, and nothing of its memory is touched.
    """
    plan, _, _ = _compile(
        model,
        num_blocks=1,
        max_num_batched_tokens=max_num_batched_tokens,
        max_logits_rows=max_logits_rows,
        weight_dtype=weight_dtype,
        kv_dtype="bfloat16",
        num_threads=1,
        kernels="",
    )
    return plan.weight_bytes, plan.buffer_bytes


def _compile(
    model: Model,
    *,
    num_blocks: int,
    max_num_batched_tokens: int,
    max_logits_rows: int,
    weight_dtype: WeightDtype,
    kv_dtype: KVDtype,
    num_threads: int,
    kernels: str,
    observed: Callable[[str], bool] | None = None,
) -> tuple[Plan, PackedWeights, list[Observed]]:
    """The model's plan, whose matrices have no weights yet, what gives them theirs, and what the
    plan can show."""
    cache = model.program.cache
    plan = Plan(
        max_tokens=max_num_batched_tokens,
        max_logits_rows=max_logits_rows,
        num_blocks=num_blocks,
        num_layers=cache.num_layers,
        num_kv_heads=cache.num_kv_heads,
        head_dim=cache.head_dim,
        kv_type=kv_dtype,
        num_threads=num_threads,
        kernels=kernels,
    )
    weights = PackedWeights(model.weights, plan, weight_dtype)
    observations = lower(model.program, plan, weights, observed)
    return plan, weights, observations


def _threads_worth_waking(model: Model) -> int:
    weight_bytes = sum(model.weights.tensors[name].num_bytes for name in model.program.weights)
    return max(1, min(default_num_threads(), round(weight_bytes / BYTES_PER_THREAD)))
