"""How much each block and each part of a block matters, by the weights alone.

`quintet.tools.prune.activations` measures it on a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from quintet.formats.quants import dequantize
from quintet.tools.model_source import ModelSource
from quintet.tools.prune.anatomy import BLOCK_NAME, Anatomy, Part, Sizes, Spans

Importance: TypeAlias = Literal["magnitude", "l2_norm", "activation"]
Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """
    Importances, larger for what matters more; comparable within a row.

    Args:
        blocks: [num_layers].
        parts: of each part [num_layers, count], of the columns of experts [num_layers,
            num_experts, count]; zeros where a block has none.
    """

    blocks: Array
    parts: Mapping[Part, Array]


def no_parts(sizes: Sizes) -> dict[Part, Array]:
    """`Scores.parts` of nothing yet."""
    num_layers, num_experts = sizes.num_layers, sizes.num_experts
    return {
        "heads": np.zeros((num_layers, sizes.num_kv_heads)),
        "columns": np.zeros((num_layers, sizes.feed_forward)),
        "experts": np.zeros((num_layers, num_experts)),
        "expert_columns": np.zeros((num_layers, num_experts, sizes.expert_feed_forward)),
        "shared_columns": np.zeros((num_layers, sizes.shared_feed_forward)),
    }


def score_weights(source: ModelSource, anatomy: Anatomy, norm: Literal[1, 2]) -> Scores:
    """
    Scores by the weights alone: sums of |w|, or L2 norms; those of a block divided by how many
    weights it has, for blocks may differ.

    The first and the last block are kept before all others: they do most, whatever their weights'
    size (Kim et al. 2024, arXiv:2402.02834, keep several at both ends).

    Args:
        source: the model.
        anatomy: its parts.
        norm: 1 or 2.

    Raises:
        UnsupportedModelError: a number format that cannot be read.
    """
    num_layers = anatomy.sizes.num_layers
    blocks, num_weights = np.zeros(num_layers), np.zeros(num_layers)
    parts = no_parts(anatomy.sizes)
    for name, info in source.tensors.items():
        match = BLOCK_NAME.fullmatch(name)
        if match is None or len(info.shape) < 2 or not name.endswith(".weight"):
            continue
        layer = int(match.group(1))
        axes = anatomy.axes(match.group(2), info)
        raw = source.raw(name).reshape(axes.shape[0], -1)
        totals = np.empty(axes.shape[0])
        for i, matrix in enumerate(raw):
            weights = np.abs(dequantize(matrix, info.ggml_type, axes.shape[1:]))
            if norm == 2:
                weights *= weights
            by_row = weights.sum(axis=1, dtype=np.float64)
            totals[i] = by_row.sum()
            _add(parts, layer, i, axes.rows, by_row)
            if axes.columns:
                _add(parts, layer, i, axes.columns, weights.sum(axis=0, dtype=np.float64))
        _add(parts, layer, 0, axes.matrices, totals)
        blocks[layer] += totals.sum()
        num_weights[layer] += raw.shape[0] * axes.shape[1] * axes.shape[2]
    blocks /= np.maximum(num_weights, 1)
    if norm == 2:
        blocks = np.sqrt(blocks)
        parts = {part: np.sqrt(scores) for part, scores in parts.items()}
    blocks[[0, -1]] = np.inf
    return Scores(blocks, parts)


def _add(parts: Mapping[Part, Array], layer: int, matrix: int, spans: Spans, sums: Array) -> None:
    """Sums along an axis of a matrix, to the parts that they are of."""
    start = 0
    for span in spans:
        stop = start + span.count * span.unit
        by_part = sums[start:stop].reshape(span.count, span.unit).sum(axis=1)
        scores = parts[span.part][layer]
        if span.part == "expert_columns":
            scores[matrix] += by_part
        else:
            scores += by_part
        start = stop
