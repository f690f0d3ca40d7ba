"""How much each block, each feed-forward column and each group of heads matters.

By the weights alone (their magnitudes, or their L2 norm), or by what they do on a text: how far a
block turns the residual stream (1 - cosine of input and output, the block influence of Men et al.
2024, arXiv:2403.03853), and the mean square of what a column or a group adds to it (activation
times weight, after Sun et al. 2023, arXiv:2306.11695).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from quintet import graph
from quintet.formats.quants import dequantize
from quintet.tools.model_source import ModelSource
from quintet.tools.text_pass import TextPass

Importance: TypeAlias = Literal["magnitude", "l2_norm", "activation"]
Array: TypeAlias = npt.NDArray[np.float64]

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_EPSILON = 1e-30  # a row of zeros has no direction


@dataclass(frozen=True, slots=True)
class Sizes:
    """
    What can be cut of a decoder.

    Args:
        num_layers: blocks.
        feed_forward: columns of each block's feed-forward.
        num_heads, num_kv_heads: of each block; the query heads of one KV head are a group.
        head_dim: values per head.
    """

    num_layers: int
    feed_forward: int
    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Scores:
    """
    Importances, larger for what matters more; comparable within a row.

    Args:
        blocks: [num_layers].
        columns: [num_layers, feed_forward].
        groups: [num_layers, num_kv_heads].
    """

    blocks: Array
    columns: Array
    groups: Array


def score_weights(source: ModelSource, sizes: Sizes, norm: Literal[1, 2]) -> Scores:
    """
    Scores by the weights alone: sums of |w|, or L2 norms.

    The first and the last block are kept before all others: they do most, whatever their weights'
    size (Kim et al. 2024, arXiv:2402.02834, keep several at both ends).

    Args:
        source: the model.
        sizes: its sizes.
        norm: 1 or 2.

    Raises:
        UnsupportedModelError: a number format that cannot be read.
    """
    blocks = np.zeros(sizes.num_layers)
    columns = np.zeros((sizes.num_layers, sizes.feed_forward))
    groups = np.zeros((sizes.num_layers, sizes.num_kv_heads))
    for name, info in source.tensors.items():
        match = _BLOCK.fullmatch(name)
        if match is None or len(info.shape) != 2:
            continue
        layer, kind = int(match.group(1)), match.group(2)
        weights = np.abs(dequantize(source.raw(name), info.ggml_type, info.shape))
        if norm == 2:
            weights *= weights
        by_row = weights.sum(axis=1, dtype=np.float64)
        blocks[layer] += by_row.sum()
        if kind in ("ffn_gate", "ffn_up"):
            columns[layer] += by_row
        elif kind == "ffn_down":
            columns[layer] += weights.sum(axis=0, dtype=np.float64)
        elif kind in ("attn_q", "attn_k", "attn_v"):
            groups[layer] += by_row.reshape(sizes.num_kv_heads, -1).sum(axis=1)
        elif kind == "attn_output":
            by_column = weights.sum(axis=0, dtype=np.float64)
            groups[layer] += by_column.reshape(sizes.num_kv_heads, -1).sum(axis=1)
    if norm == 2:
        blocks, columns, groups = np.sqrt(blocks), np.sqrt(columns), np.sqrt(groups)
    blocks[[0, -1]] = np.inf
    return Scores(blocks, columns, groups)


def score_activations(
    model: str | os.PathLike[str],
    source: ModelSource,
    sizes: Sizes,
    text: str,
    *,
    context: int,
    max_chunks: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """
    Scores by what the parts do on a text, which the reference executor reads: see `imatrix`.

    Args:
        model: path of the model.
        source: the same, opened.
        sizes: its sizes.
        text: like what the model will be used on.
        context, max_chunks: tokens of a chunk, and how many chunks to read.
        progress: called with chunks done and chunks in all.

    Raises: as for `TextPass`, and
        RequestError: the text is shorter than a chunk.
    """
    recorder = _Recorder(sizes)
    with TextPass(model, context=context, observe=recorder.observe) as text_pass:
        chunks = text_pass.chunks(text)[:max_chunks]
        for done, chunk in enumerate(chunks):
            # Without logits beyond the last: only what happens in the blocks matters.
            for _ in text_pass.logits(chunk, first=len(chunk) - 1):
                pass
            if progress is not None:
                progress(done + 1, len(chunks))
    columns = np.empty((sizes.num_layers, sizes.feed_forward))
    groups = np.empty((sizes.num_layers, sizes.num_kv_heads))
    for layer in range(sizes.num_layers):
        columns[layer] = recorder.added(source, f"blk.{layer}.ffn_down.weight")
        by_column = recorder.added(source, f"blk.{layer}.attn_output.weight")
        groups[layer] = by_column.reshape(sizes.num_kv_heads, -1).sum(axis=1)
    return Scores(1 - recorder.cosines / recorder.num_tokens, columns, groups)


class _Recorder:
    """Watches ops: the squared inputs of both output matrices, and the stream between blocks."""

    def __init__(self, sizes: Sizes) -> None:
        self.cosines = np.zeros(sizes.num_layers)  # sums over tokens
        self.num_tokens = 0
        self._squares: dict[str, Array] = {}
        self._stream: npt.NDArray[Any] = np.zeros((0, 0))
        self._layer = -1

    def observe(self, op: graph.Op, values: Any) -> None:
        """See `ReferenceExecutor`."""
        if isinstance(op, graph.Linear) and op.weight.endswith(
            (".ffn_down.weight", ".attn_output.weight")
        ):
            x = values[op.x.node]
            square = np.einsum("ij,ij->j", x, x, dtype=np.float64)
            self._squares[op.weight] = self._squares.get(op.weight, 0.0) + square
        elif isinstance(op, graph.RMSNorm) and op.weight.endswith(".attn_norm.weight"):
            self._boundary(values[op.x.node])
        elif isinstance(op, graph.SelectRows):
            self._boundary(values[op.x.node])
            self.num_tokens += len(values[op.x.node])
            self._layer = -1

    def added(self, source: ModelSource, name: str) -> Array:
        """[columns]: the mean square of what each input column adds to the output."""
        info = source.tensors[name]
        weights = dequantize(source.raw(name), info.ggml_type, info.shape)
        weight_squares = np.einsum("ij,ij->j", weights, weights, dtype=np.float64)
        return np.asarray(self._squares[name] / self.num_tokens * weight_squares, np.float64)

    def _boundary(self, stream: npt.NDArray[Any]) -> None:
        """The end of one block, and the start of the next."""
        if self._layer >= 0:
            dots = np.einsum("ij,ij->i", self._stream, stream, dtype=np.float64)
            lengths = np.linalg.norm(self._stream, axis=1) * np.linalg.norm(stream, axis=1)
            self.cosines[self._layer] += (dots / np.maximum(lengths, _EPSILON)).sum()
        self._stream = stream
        self._layer += 1
