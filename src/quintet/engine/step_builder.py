"""From scheduled sequences to the arrays an executor takes."""

from __future__ import annotations

from collections.abc import Sequence as Collection

import numpy as np

from quintet.backends.base import BLOCK_SIZE, StepInput
from quintet.engine.scheduler import Scheduled


def build_step(batch: Collection[Scheduled]) -> StepInput:
    """The step that computes `batch`, one run of rows per sequence, in order.

    Logits are asked for the last row of each sequence that samples.
    """
    counts = [scheduled.num_tokens for scheduled in batch]
    cu_seqlens = np.zeros(len(batch) + 1, np.int32)
    np.cumsum(counts, out=cu_seqlens[1:])
    num_tokens = int(cu_seqlens[-1])

    max_blocks = max(len(scheduled.sequence.block_table) for scheduled in batch)
    block_tables = np.full((len(batch), max_blocks), -1, np.int32)
    token_ids = np.empty(num_tokens, np.int32)
    positions = np.empty(num_tokens, np.int32)
    slot_mapping = np.empty(num_tokens, np.int32)
    seq_lens = np.empty(len(batch), np.int32)

    for i, scheduled in enumerate(batch):
        sequence = scheduled.sequence
        start = sequence.num_computed_tokens
        end = start + scheduled.num_tokens
        rows = slice(cu_seqlens[i], cu_seqlens[i + 1])
        table = block_tables[i]
        table[: len(sequence.block_table)] = sequence.block_table
        place = np.arange(start, end, dtype=np.int32)
        token_ids[rows] = sequence.token_ids[start:end]
        positions[rows] = place
        slot_mapping[rows] = table[place // BLOCK_SIZE] * BLOCK_SIZE + place % BLOCK_SIZE
        seq_lens[i] = end

    logits_rows = [cu_seqlens[i + 1] - 1 for i, scheduled in enumerate(batch) if scheduled.samples]
    return StepInput(
        token_ids=token_ids,
        positions=positions,
        cu_seqlens=cu_seqlens,
        slot_mapping=slot_mapping,
        block_tables=block_tables,
        seq_lens=seq_lens,
        logits_rows=np.array(logits_rows, np.int32),
    )
