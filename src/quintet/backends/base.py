"""The seam between the engine and whatever computes: one step in, logits out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from quintet._native import ThreadPool

BLOCK_SIZE = 16  # tokens per KV block; the native kernels are laid out for it

Threads: TypeAlias = ThreadPool
"""What a backend's steps run on, for the rooms above it."""

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]

Observer: TypeAlias = Callable[[tuple[str, ...], int, Float32Array], None]
"""Called with weights, which of their matrices (0, but of experts), and the rows [n, width] they
are given, valid during the call."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """One step of work, prefill and decode alike, for s sequences and n new tokens in all.

    A sequence contributes one token (decode), a chunk (prefill) or 1 + k tokens
    (speculation).  Its rows are contiguous.

    Args:
        token_ids: [n] int32.
        positions: [n] int32, each token's place in its sequence.
        cu_seqlens: [s + 1] int32; sequence i owns rows cu_seqlens[i]:cu_seqlens[i + 1].
        slot_mapping: [n] int32; slot = block_id * BLOCK_SIZE + offset of each new token.
        block_tables: [s, max_blocks] int32; -1 pads short rows.
        seq_lens: [s] int32, in tokens, counting those of this step.
        logits_rows: [r] int32, ascending; the rows to compute logits for.
        token_types: [n] int32, which of a pair of texts each token belongs to, for models that
            are told; None: all the first.
    """

    token_ids: Int32Array
    positions: Int32Array
    cu_seqlens: Int32Array
    slot_mapping: Int32Array
    block_tables: Int32Array
    seq_lens: Int32Array
    logits_rows: Int32Array
    token_types: Int32Array | None = None


class Executor(Protocol):
    """A model loaded on a backend, with its paged KV cache.  Used from one thread at a time."""

    @property
    def num_blocks(self) -> int:
        """Blocks of BLOCK_SIZE tokens in the KV cache; ids are 0 .. num_blocks - 1."""

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""

    @property
    def hidden_size(self) -> int:
        """Columns of the hidden rows."""

    @property
    def max_num_batched_tokens(self) -> int:
        """The most new tokens one step may carry."""

    @property
    def max_logits_rows(self) -> int:
        """The most rows one step may ask logits for."""

    @property
    def threads(self) -> Threads | None:
        """What its steps run on, to be lent between them; None where it has none of its own."""

    def run(self, step: StepInput) -> Float32Array:
        """Execute one step; write its tokens' k and v to the cache.

        Returns:
            [len(step.logits_rows), vocab_size] float32, the caller's to change,
            valid until the next call.

        Raises:
            ValueError: the step breaks its contract (a bug of the caller's).
        """

    def run_hidden(self, step: StepInput) -> Float32Array:
        """Execute one step up to the model's head, which is left out.

        A model that is not causal wants every sequence whole: all of its tokens in this step.

        Args:
            step: its `logits_rows` are the rows wanted, any number of them.

        Returns:
            [len(step.logits_rows), hidden_size] float32, the caller's.

        Raises:
            ValueError: the step breaks its contract (a bug of the caller's).
        """

    def close(self) -> None:
        """Free weights and cache.  Idempotent."""


class ObservedExecutor(Executor, Protocol):
    """An executor that can be watched: what its weights are given, which no result shows."""

    def run_observed(self, step: StepInput, observer: Observer) -> None:
        """Execute one step up to the model's head; write its tokens' k and v to the cache.

        Args:
            step: its `logits_rows` are the rows that reach the last norm.
            observer: called in the program's order, once for each wanted weight, and of experts
                once for each that has rows.

        Raises:
            ValueError: the step breaks its contract (a bug of the caller's).
        """
