"""How much each block and each part of a block matters, by what they do on a text.

How far a block turns the residual stream (1 - cosine of input and output, the block influence of
Men et al. 2024, arXiv:2403.03853); the mean square of what a column or a group of heads adds to it
(activation times weight, after Sun et al. 2023, arXiv:2306.11695); and the share of the router's
weights that an expert gets (after Muzio et al. 2024, arXiv:2404.05089).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet import graph
from quintet.backends.reference import expert_inner, route
from quintet.tools.prune_anatomy import Anatomy, Part
from quintet.tools.prune_scores import Array, Scores, no_parts
from quintet.tools.text_pass import TextPass

_EPSILON = 1e-30  # a row of zeros has no direction
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.weight")
# The matrices whose inputs are parts, and those parts; heads are several inputs each.
_OUTPUTS: Mapping[str, Part] = {
    "attn_output": "heads",
    "ffn_down": "columns",
    "ffn_down_shexp": "shared_columns",
}


def score_activations(
    model: str | os.PathLike[str],
    anatomy: Anatomy,
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
        anatomy: its parts.
        text: like what the model will be used on.
        context, max_chunks: tokens of a chunk, and how many chunks to read.
        progress: called with chunks done and chunks in all.

    Raises: as for `TextPass`, and
        RequestError: the text is shorter than a chunk.
    """
    recorder = _Recorder(anatomy)
    with TextPass(model, context=context, observe=recorder.observe) as text_pass:
        recorder.weights = text_pass.weights
        chunks = text_pass.chunks(text)[:max_chunks]
        for done, chunk in enumerate(chunks):
            # Without logits beyond the last: only what happens in the blocks matters.
            for _ in text_pass.logits(chunk, first=len(chunk) - 1):
                pass
            if progress is not None:
                progress(done + 1, len(chunks))
        return recorder.scores()


class _Recorder:
    """Watches ops: what goes into output matrices and experts, and the stream between blocks."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.weights: Mapping[str, npt.NDArray[Any]] = {}
        self._parts = no_parts(anatomy.sizes)
        self._cosines = np.zeros(anatomy.sizes.num_layers)  # sums over tokens
        self._num_tokens = 0
        self._stream: npt.NDArray[Any] = np.zeros((0, 0))
        self._layer = -1

    def observe(self, op: graph.Op, values: Sequence[Any]) -> None:
        """See `ReferenceExecutor`."""
        if isinstance(op, graph.Linear | graph.RMSNorm) and (match := _BLOCK.fullmatch(op.weight)):
            layer = int(match.group(1))
            if layer != self._layer:  # what reads the stream first is a norm, or a projection
                self._boundary(values[op.x.node], layer)
            if isinstance(op, graph.Linear) and match.group(2) in _OUTPUTS:
                part = _OUTPUTS[match.group(2)]
                self._add(part, layer, _squares(values[op.x.node], self.weights[op.weight]))
        elif isinstance(op, graph.Moe):
            self._experts(op, values)
        elif isinstance(op, graph.SelectRows):
            self._boundary(values[op.x.node], -1)
            self._num_tokens += len(values[op.x.node])

    def scores(self) -> Scores:
        """Means over the tokens that were seen."""
        parts = {part: sums / self._num_tokens for part, sums in self._parts.items()}
        return Scores(1 - self._cosines / self._num_tokens, parts)

    def _add(self, part: Part, layer: int, by_input: Array) -> None:
        sums = self._parts[part][layer]
        sums += by_input.reshape(len(sums), -1).sum(axis=1)

    def _experts(self, op: graph.Moe, values: Sequence[Any]) -> None:
        x, routing, layer = values[op.x.node], op.routing, self._layer
        bias = None if routing.bias is None else self.weights[routing.bias]
        chosen, taken = route(values[op.scores.node], routing, bias)
        down = self.weights[op.experts.down]
        for expert in np.unique(chosen).tolist():
            rows, ranks = np.nonzero(chosen == expert)
            shares = taken[rows, ranks]
            self._parts["experts"][layer, expert] += shares.sum()
            inner = expert_inner(x[rows], op.experts, expert, self.weights) * shares[:, None]
            self._parts["expert_columns"][layer, expert] += _squares(inner, down[expert])

    def _boundary(self, stream: npt.NDArray[Any], layer: int) -> None:
        """The end of one block, and the start of the next."""
        if self._layer >= 0:
            dots = np.einsum("ij,ij->i", self._stream, stream, dtype=np.float64)
            lengths = np.linalg.norm(self._stream, axis=1) * np.linalg.norm(stream, axis=1)
            self._cosines[self._layer] += (dots / np.maximum(lengths, _EPSILON)).sum()
        self._stream = stream
        self._layer = layer


def _squares(x: npt.NDArray[Any], weight: npt.NDArray[Any]) -> Array:
    """[inputs]: the square of what each input adds to x @ weight.T, summed over rows of x."""
    of_weight = np.einsum("ij,ij->j", weight, weight, dtype=np.float64)
    return np.asarray(np.einsum("ij,ij->j", x, x, dtype=np.float64) * of_weight, np.float64)
