"""From the rows of a text's tokens to one vector, in any number of pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quintet.backends.base import Float32Array
from quintet.models import Pooling


class Pooler:
    """
    One text's vector.

    Sums are added row by row in double precision, so that neither the pieces nor what else is in
    a pass change a bit of it.

    Args:
        pooling: "rank" takes the row that the model's head reads.
        num_tokens: of the text.
        is_causal: the model; its head reads the last row, that of an encoder the first.
    """

    def __init__(self, pooling: Pooling, num_tokens: int, *, is_causal: bool) -> None:
        if pooling == "rank":
            pooling = "last" if is_causal else "cls"
        self._pooling = pooling
        self._num_tokens = num_tokens
        self._state: npt.NDArray[np.float64] | None = None

    def wanted(self, start: int, end: int) -> Sequence[int]:
        """Which of the rows start .. end - 1 it reads, counted from `start`."""
        if self._pooling in ("mean", "max"):
            return range(end - start)
        place = 0 if self._pooling == "cls" else self._num_tokens - 1
        return [place - start] if start <= place < end else []

    def add(self, rows: Float32Array) -> None:
        """Take in the rows that it wanted of a piece, in order: [n, width]."""
        if len(rows) == 0:
            return
        values = rows.astype(np.float64)
        if self._state is not None:
            values = np.concatenate([self._state[None], values])
        reduce = np.maximum.reduce if self._pooling == "max" else np.add.reduce
        self._state = reduce(values, axis=0)

    def vector(self) -> Float32Array:
        """[width] float32, once all rows are in."""
        if self._state is None:
            raise ValueError("no rows have been added")
        total = self._state / self._num_tokens if self._pooling == "mean" else self._state
        return total.astype(np.float32)
