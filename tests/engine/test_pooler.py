"""Pooling against its definition, whole and in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from quintet.engine.pooler import Pooler

ROWS = np.random.default_rng(1).standard_normal((37, 24)).astype(np.float32)
EXPECTED = {
    "mean": ROWS.astype(np.float64).mean(axis=0),
    "max": ROWS.max(axis=0),
    "cls": ROWS[0],
    "last": ROWS[-1],
}


def pooled(pooling: str, piece: int, *, is_causal: bool = True) -> np.ndarray:
    pooler = Pooler(pooling, len(ROWS), is_causal=is_causal)
    for start in range(0, len(ROWS), piece):
        end = min(start + piece, len(ROWS))
        pooler.add(ROWS[start:end][list(pooler.wanted(start, end))])
    return pooler.vector()


@pytest.mark.parametrize("pooling", EXPECTED)
def test_vector_is_that_of_the_definition_in_any_pieces(pooling):
    """The result is float32, right to its rounding, and the same bits however rows arrive."""
    whole = pooled(pooling, len(ROWS))
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, EXPECTED[pooling].astype(np.float32))
    for piece in (1, 5, 36):
        np.testing.assert_array_equal(pooled(pooling, piece), whole)


def test_only_rows_that_count_are_asked_for():
    """The first and the last need one row, whatever the piece; a head reads the same."""
    assert [list(Pooler("cls", 9, is_causal=True).wanted(a, a + 3)) for a in (0, 3, 6)] == [
        [0],
        [],
        [],
    ]
    assert [list(Pooler("last", 9, is_causal=False).wanted(a, a + 3)) for a in (0, 3, 6)] == [
        [],
        [],
        [2],
    ]
    np.testing.assert_array_equal(pooled("rank", 5, is_causal=True), ROWS[-1])
    np.testing.assert_array_equal(pooled("rank", 5, is_causal=False), ROWS[0])


def test_a_vector_without_rows_is_a_bug():
    """Asking too early raises rather than gives something."""
    with pytest.raises(ValueError, match="no rows"):
        Pooler("mean", 3, is_causal=True).vector()
