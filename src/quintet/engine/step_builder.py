"""From scheduled sequences to the arrays an executor takes."""

from __future__ import annotations

from collections.abc import Sequence as Collection
from typing import NamedTuple

import numpy as np

from quintet.backends.base import BLOCK_SIZE, StepInput
from quintet.engine.scheduler import Scheduled


class StepPart(NamedTuple):
    """
    One sequence's rows of a step.

    Args:
        block_table: block ids that hold all its tokens, those of the step included.
        start: the position of its first row.
        token_ids: of its rows.
        logits_rows: those of its rows, counted from 0, whose logits are wanted; ascending.
    """

    block_table: Collection[int]
    start: int
    token_ids: list[int]
    logits_rows: Collection[int]


def build_step(batch: Collection[Scheduled]) -> StepInput:
    """The step that computes `batch`, one run of rows per sequence, in order.

    Logits are asked for the rows of each sequence that score its prompt, then, where it
    samples, for its last token and for each guess that follows it.
    """
    parts = []
    for scheduled in batch:
        sequence = scheduled.sequence
        start = sequence.num_computed_tokens
        token_ids = sequence.token_ids[start : start + scheduled.num_tokens]
        token_ids += scheduled.draft_ids
        logits_rows: list[int] = [place - start for place in scheduled.scored]
        if scheduled.samples:
            logits_rows += range(scheduled.num_tokens - 1, len(token_ids))
        parts.append(StepPart(sequence.block_table, start, token_ids, logits_rows))
    return pack_step(parts)


def pack_step(parts: Collection[StepPart]) -> StepInput:
    """The arrays of a step, its parts' rows one after the other."""
    # Lists first, one conversion each: most sequences bring a single token, and an array
    # operation for each of those would cost more than the rest of the step's bookkeeping.
    all_token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    cu_seqlens = [0]
    seq_lens: list[int] = []
    logits_rows: list[int] = []
    max_blocks = max(len(part.block_table) for part in parts)
    block_tables = np.full((len(parts), max_blocks), -1, np.int32)

    for padded, (table, start, token_ids, rows) in zip(block_tables, parts, strict=True):
        end = start + len(token_ids)
        padded[: len(table)] = table
        all_token_ids += token_ids
        positions += range(start, end)
        slots += [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(start, end)]
        cu_seqlens.append(len(all_token_ids))
        seq_lens.append(end)
        logits_rows += [cu_seqlens[-2] + row for row in rows]

    return StepInput(
        token_ids=np.array(all_token_ids, np.int32),
        positions=np.array(positions, np.int32),
        cu_seqlens=np.array(cu_seqlens, np.int32),
        slot_mapping=np.array(slots, np.int32),
        block_tables=block_tables,
        seq_lens=np.array(seq_lens, np.int32),
        logits_rows=np.array(logits_rows, np.int32),
    )
