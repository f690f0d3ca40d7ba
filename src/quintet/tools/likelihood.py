"""Logits to likelihoods and divergences, over whole vocabularies.

A row of logits may have 150,000 columns and a text a hundred thousand rows, so that this would
take as long as the model: exponentials are in float32, which the CPU takes eight or sixteen at a
time, some rows at a time, which stay in its cache; what is summed over them is in float64 or near
zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Logits: TypeAlias = npt.NDArray[np.float32]

_BLOCK_VALUES = 1 << 17  # half a megabyte


def log_normalizers(logits: Logits) -> Floats:
    """[n, vocab_size] -> [n]: log of the sum of exp over each row."""
    norms = np.empty(len(logits))
    for rows in _blocks(logits):
        largest = logits[rows].max(axis=1, keepdims=True)
        sums = np.exp(logits[rows] - largest).sum(axis=1, dtype=np.float64)
        norms[rows] = np.log(sums) + largest[:, 0]
    return norms


def divergences(a: Logits, norms_a: Floats, b: Logits, norms_b: Floats) -> Floats:
    """
    KL(a || b) of each row, in nats.

    Args:
        a, b: [n, vocab_size] logits.
        norms_a, norms_b: [n] their `log_normalizers`.

    Returns:
        [n].
    """
    found = np.empty(len(a))
    for rows in _blocks(a):
        probabilities = np.exp(a[rows] - norms_a[rows, None].astype(np.float32))
        # The difference of the normalisers is taken off first: what is left is small.
        shift = (norms_a[rows] - norms_b[rows]).astype(np.float32)
        differences = a[rows] - b[rows]
        differences -= shift[:, None]
        found[rows] = np.einsum("ij,ij->i", probabilities, differences)
    return found


def _blocks(rows: Logits) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    for begin in range(0, len(rows), step):
        yield slice(begin, begin + step)
