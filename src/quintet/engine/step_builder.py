"""From scheduled sequences to the arrays an executor takes."""

from __future__ import annotations

from collections.abc import Sequence as Collection

import numpy as np

from quintet.backends.base import BLOCK_SIZE, StepInput
from quintet.engine.scheduler import Scheduled


def build_step(batch: Collection[Scheduled]) -> StepInput:
    """The step that computes `batch`, one run of rows per sequence, in order.

    Logits are asked for the rows of each sequence that score its prompt, then for its last one
    where it samples.
    """
    # Lists first, one conversion each: most sequences bring a single token, and an array
    # operation for each of those would cost more than the rest of the step's bookkeeping.
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    cu_seqlens = [0]
    seq_lens: list[int] = []
    logits_rows: list[int] = []
    max_blocks = max(len(scheduled.sequence.block_table) for scheduled in batch)
    block_tables = np.full((len(batch), max_blocks), -1, np.int32)

    for row, scheduled in zip(block_tables, batch, strict=True):
        sequence = scheduled.sequence
        table = sequence.block_table
        start = sequence.num_computed_tokens
        end = start + scheduled.num_tokens
        row[: len(table)] = table
        token_ids += sequence.token_ids[start:end]
        positions += range(start, end)
        slots += [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(start, end)]
        cu_seqlens.append(len(token_ids))
        seq_lens.append(end)
        logits_rows += [cu_seqlens[-2] + place - start for place in scheduled.scored]
        if scheduled.samples:
            logits_rows.append(len(token_ids) - 1)

    return StepInput(
        token_ids=np.array(token_ids, np.int32),
        positions=np.array(positions, np.int32),
        cu_seqlens=np.array(cu_seqlens, np.int32),
        slot_mapping=np.array(slots, np.int32),
        block_tables=block_tables,
        seq_lens=np.array(seq_lens, np.int32),
        logits_rows=np.array(logits_rows, np.int32),
    )
