"""Builds StepInputs by hand: sequences with their own block tables, no scheduler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quintet.backends.base import BLOCK_SIZE, Executor, StepInput


@dataclass
class Seq:
    """A sequence and the blocks it may use."""

    tokens: list[int]
    blocks: list[int]
    num_computed: int = 0


def step_input(work: list[tuple[Seq, int]]) -> StepInput:
    """One step that advances each sequence by its count; logits of every new token."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    cu_seqlens = [0]
    max_blocks = max(len(seq.blocks) for seq, _ in work)
    tables = np.full((len(work), max_blocks), -1, np.int32)
    for i, (seq, count) in enumerate(work):
        span = range(seq.num_computed, seq.num_computed + count)
        token_ids += [seq.tokens[p] for p in span]
        positions += span
        slots += [seq.blocks[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in span]
        cu_seqlens.append(len(token_ids))
        tables[i, : len(seq.blocks)] = seq.blocks
    as_int32 = lambda values: np.array(values, np.int32)  # noqa: E731
    return StepInput(
        token_ids=as_int32(token_ids),
        positions=as_int32(positions),
        cu_seqlens=as_int32(cu_seqlens),
        slot_mapping=as_int32(slots),
        block_tables=tables,
        seq_lens=as_int32([seq.num_computed + count for seq, count in work]),
        logits_rows=np.arange(len(token_ids), dtype=np.int32),
    )


def run(executor: Executor, work: list[tuple[Seq, int]]) -> list[np.ndarray]:
    """Run one step and advance the sequences; each one's logits [count, vocab_size]."""
    step = step_input(work)
    logits = executor.run(step).copy()
    for seq, count in work:
        seq.num_computed += count
    return [logits[a:b] for a, b in zip(step.cu_seqlens, step.cu_seqlens[1:], strict=False)]


def prefill(executor: Executor, tokens: list[int], blocks: list[int], chunk: int) -> np.ndarray:
    """All logits of one sequence, computed `chunk` tokens at a time."""
    seq = Seq(tokens, blocks)
    parts = []
    while seq.num_computed < len(tokens):
        count = min(chunk, len(tokens) - seq.num_computed)
        parts.append(run(executor, [(seq, count)])[0])
    return np.concatenate(parts)


def run_hidden(executor: Executor, sequences: list[Seq]) -> list[np.ndarray]:
    """Every hidden row of these sequences, all in one step."""
    step = step_input([(seq, len(seq.tokens) - seq.num_computed) for seq in sequences])
    rows = executor.run_hidden(step)
    return [rows[a:b] for a, b in zip(step.cu_seqlens, step.cu_seqlens[1:], strict=False)]
