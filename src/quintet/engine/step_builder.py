"""From scheduled sequences to the arrays an executor takes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Collection
from typing import NamedTuple

import numpy as np

from quintet.backends.base import BLOCK_SIZE, StepInput
from quintet.engine.scheduler import Scheduled

_FIRST_ROW = (0,)
_INT_BYTES = array("i").itemsize


class StepPart(NamedTuple):
    """
    One sequence's rows of a step.

    Args:
        block_table: int32 block ids that hold all its tokens, those of the step included.
        start: the position of its first row.
        token_ids: of its rows.
        logits_rows: those of its rows, counted from 0, whose logits are wanted; ascending.
    """

    block_table: array[int]
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
        logits_rows: Collection[int] = _FIRST_ROW
        if scheduled.num_tokens > 1 or scheduled.draft_ids or not scheduled.samples:
            token_ids += scheduled.draft_ids
            logits_rows = [place - start for place in scheduled.scored]
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
    tables: list[bytes] = []
    width = max(len(part.block_table) for part in parts) * _INT_BYTES

    for table, start, token_ids, rows in parts:
        first = len(all_token_ids)
        if len(token_ids) == 1:
            end = start + 1
            positions.append(start)
            slots.append(table[start // BLOCK_SIZE] * BLOCK_SIZE + start % BLOCK_SIZE)
        else:
            end = start + len(token_ids)
            places = range(start, end)
            positions += places
            slots += [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in places]
        all_token_ids += token_ids
        cu_seqlens.append(len(all_token_ids))
        seq_lens.append(end)
        logits_rows += [first + row for row in rows]
        tables.append(table.tobytes().ljust(width, b"\xff"))  # -1

    return StepInput(
        token_ids=np.array(all_token_ids, np.int32),
        positions=np.array(positions, np.int32),
        cu_seqlens=np.array(cu_seqlens, np.int32),
        slot_mapping=np.array(slots, np.int32),
        block_tables=np.frombuffer(bytearray().join(tables), np.int32).reshape(len(parts), -1),
        seq_lens=np.array(seq_lens, np.int32),
        logits_rows=np.array(logits_rows, np.int32),
    )
