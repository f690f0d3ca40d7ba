"""What an executor shows of a step on its way: the rows that weights are given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quintet import graph
from quintet.backends.base import Float32Array, Int32Array


@dataclass(frozen=True, slots=True)
class Observed:
    """
    A place of a program that can be looked at.

    Args:
        weights: that are given the rows there; of experts, those that are wanted.
        experts: set where the rows are given to experts.
    """

    weights: tuple[str, ...]
    experts: graph.Experts | None = None


def rows_of_experts(
    observed: Observed,
    x: Float32Array,
    visits: Int32Array,
    begins: Int32Array,
    inner: Float32Array,
) -> Iterator[tuple[tuple[str, ...], int, Float32Array]]:
    """
    What each expert is given in a step.

    Args:
        x: [n, width] rows of the step.
        visits: [n, num_used], where each row's visits lie among those of all, sorted by expert.
        begins: [1, num_experts + 1], each expert's first visit.
        inner: [n * num_used, inner_width], what the down matrices are given, by visit.

    Yields:
        names, expert, rows: of the experts that have rows.
    """
    experts = observed.experts
    if experts is None:
        raise ValueError("rows of experts where there are none")
    outer = tuple(name for name in (experts.gate, experts.up) if name in observed.weights)
    sources = np.empty(visits.size, np.intp)  # the row of each visit
    sources[visits.ravel()] = np.repeat(np.arange(len(visits)), visits.shape[1])
    bounds = begins[0].tolist()
    for expert, (begin, end) in enumerate(itertools.pairwise(bounds)):
        if begin == end:
            continue
        if outer:
            yield outer, expert, x[sources[begin:end]]
        if experts.down in observed.weights:
            yield (experts.down,), expert, inner[begin:end]
