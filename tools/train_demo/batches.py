"""Samples to packed rows: token ids, sample numbers and the weight of each target."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import corpus
import torch
from template import training_text
from tokenizers import Tokenizer
from torch import Tensor

PROMPT_WEIGHT = 0.03
"""What the user says is learnt lightly: it helps the embeddings, but is not to be imitated."""
SENTENCE_TOKENS = 16


@dataclass(frozen=True)
class Batch:
    """tokens, samples, targets: [rows, length] int64; weights: [rows, length] float32."""

    tokens: Tensor
    samples: Tensor
    targets: Tensor
    weights: Tensor


Encoded = tuple[list[int], list[float]]


def batches(
    tokenizer: Tokenizer, seed: int, *, row_length: int, long_length: int, batch_tokens: int
) -> Iterator[Batch]:
    """
    Endless batches of `batch_tokens` tokens.

    Samples that fit share rows of `row_length`; longer ones share rows of `long_length`.
    """
    rng = random.Random(seed)
    packers = {
        row_length: _Packer(row_length, batch_tokens // row_length),
        long_length: _Packer(long_length, batch_tokens // long_length),
    }
    while True:
        chunk = [training_text(corpus.draw(rng)) for _ in range(8192)]
        ready: list[Batch] = []
        for encoding in tokenizer.encode_batch(chunk):
            ids = encoding.ids
            if len(ids) > long_length:
                continue
            packer = packers[row_length if len(ids) <= row_length else long_length]
            packer.add((ids, target_weights(tokenizer, ids)))
        for packer in packers.values():
            ready += packer.take(rng)
        rng.shuffle(ready)
        yield from ready


def target_weights(tokenizer: Tokenizer, ids: list[int]) -> list[float]:
    """
    How much each token counts as a target: replies fully, prompts little.

    A long reply's tokens count less each, or stories would drown the one digit of a sum.
    """
    start, end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    if ids[0] != start:
        return [token_weight(len(ids))] * len(ids)
    header = [start, *tokenizer.encode("assistant\n").ids]
    weights = [PROMPT_WEIGHT] * len(ids)
    index = 0
    while index < len(ids):
        index += 1
        if ids[index - len(header) : index] != header:
            continue
        stop = ids.index(end, index) + 1
        weights[index:stop] = [token_weight(stop - index)] * (stop - index)
        index = stop
    return weights


def token_weight(num_tokens: int) -> float:
    """1 for a sentence, falling with the square root of the length."""
    return min(1.0, (SENTENCE_TOKENS / num_tokens) ** 0.5)


class _Packer:
    """First fit into open rows, fullest rows closed first."""

    def __init__(self, length: int, num_rows: int) -> None:
        self._length = length
        self._num_rows = num_rows
        self._waiting: list[Encoded] = []

    def add(self, sample: Encoded) -> None:
        self._waiting.append(sample)

    def take(self, rng: random.Random) -> list[Batch]:
        """All full batches; what is left over waits for the next chunk."""
        rows: list[list[Encoded]] = []
        open_rows: list[tuple[int, list[Encoded]]] = []
        for sample in self._waiting:
            size = len(sample[0])
            for index, (free, row) in enumerate(open_rows):
                if size <= free:
                    row.append(sample)
                    open_rows[index] = (free - size, row)
                    break
            else:
                open_rows.append((self._length - size, [sample]))
            if len(open_rows) > 32:
                open_rows.sort(key=lambda entry: entry[0], reverse=True)
                rows.append(open_rows.pop()[1])
        rng.shuffle(rows)
        num_batches = len(rows) // self._num_rows
        taken = num_batches * self._num_rows
        left = [row for _, row in open_rows] + rows[taken:]
        self._waiting = [sample for row in left for sample in row]
        return [
            self._batch(rows[first : first + self._num_rows])
            for first in range(0, taken, self._num_rows)
        ]

    def _batch(self, rows: list[list[Encoded]]) -> Batch:
        shape = (len(rows), self._length)
        tokens, samples = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        targets, weights = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
        for index, row in enumerate(rows):
            place = 0
            for number, (ids, importance) in enumerate(row, start=1):
                size = len(ids)
                tokens[index, place : place + size] = torch.tensor(ids)
                samples[index, place : place + size] = number
                targets[index, place : place + size - 1] = torch.tensor(ids[1:])
                weights[index, place : place + size - 1] = torch.tensor(importance[1:])
                place += size
        return Batch(tokens, samples, targets, weights)
