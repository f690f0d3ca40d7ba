"""How much each block and each part of a block matters, by what they do on a text.

How far a block turns the residual stream (1 - cosine of input and output, the block influence of
Men et al. 2024, arXiv:2403.03853); the mean square of what a column or a group of heads adds to it
(activation times weight, after Sun et al. 2023, arXiv:2306.11695); and the share of the router's
weights that an expert gets (after Muzio et al. 2024, arXiv:2404.05089).
"""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from quintet import ops
from quintet.backends.reference import expert_weights, route
from quintet.formats.quants import dequantize
from quintet.tools.model_source import ModelSource
from quintet.tools.prune.anatomy import Anatomy
from quintet.tools.prune.places import Places, Router, find_places
from quintet.tools.prune.scores import Array, Scores, no_parts
from quintet.tools.text_pass import Dtype, TextPass

_EPSILON = 1e-30  # a row of zeros has no direction
_Rows: TypeAlias = npt.NDArray[np.float32]


def score_activations(
    model: str | os.PathLike[str],
    source: ModelSource,
    program: ops.Program,
    anatomy: Anatomy,
    text: str,
    *,
    context: int,
    max_chunks: int | None = None,
    dtype: Dtype = "auto",
    num_threads: int | None = None,
) -> Scores:
    """
    Scores by what the parts do on a text, which the native engine reads and shows.

    Args:
        model: path of the model.
        source, program, anatomy: its tensors, ops and parts.
        text: like what the model will be used on.
        context, max_chunks: tokens of a chunk, and how many chunks to read.
        dtype, num_threads: see `TextPass`.

    Raises: as for `TextPass`, and
        RequestError: the text is shorter than a chunk.
    """
    places = find_places(program)
    recorder = _Recorder(anatomy, places, source)
    with TextPass(
        model,
        context=context,
        dtype=dtype,
        num_threads=num_threads,
        observed=lambda name: name in places,
    ) as text_pass:
        for chunk in text_pass.chunks(text)[:max_chunks]:
            text_pass.observe(chunk, recorder.add)
    return recorder.scores()


class _Recorder:
    """Sums over tokens: how far they turn in a block, squared activations, experts' shares."""

    def __init__(self, anatomy: Anatomy, places: Places, source: ModelSource) -> None:
        self._places = places
        self._source = source
        self._num_tokens = 0
        self._cosines = np.zeros(anatomy.sizes.num_layers)
        self._parts = no_parts(anatomy.sizes)
        self._squares: dict[str, dict[int, Array]] = {}  # by weight and expert, of each column
        self._routers = {gate: _Sender(source, router) for gate, router in places.gates.items()}
        self._layer = -1
        self._stream: _Rows = np.zeros((0, 0), np.float32)  # what the block was given
        self._shares: _Rows = np.zeros(0, np.float32)  # of an expert, whose columns follow

    def add(self, names: tuple[str, ...], matrix: int, rows: _Rows) -> None:
        """See `Observer`."""
        places = self._places
        for name in names:
            if name in places.starts:
                self._boundary(rows, places.starts[name])
            elif name == places.end:
                self._boundary(rows, -1)
                self._num_tokens += len(rows)
            elif name in places.gates:
                self._shares = self._routers[name].shares(rows, matrix)
                self._parts["experts"][places.gates[name].layer, matrix] += self._shares.sum()
            elif name in places.downs:
                self._add_squares(name, matrix, rows * self._shares[:, None])
            if name in places.outputs:  # also where it is the first to read
                self._add_squares(name, matrix, rows)

    def scores(self) -> Scores:
        """Means over the tokens that were seen."""
        parts = self._parts
        for name, by_matrix in self._squares.items():
            raw, info = self._source.raw(name), self._source.tensors[name]
            stack = raw.reshape(info.shape[0] if name in self._places.downs else 1, -1)
            for matrix, squares in by_matrix.items():
                weights = dequantize(stack[matrix], info.ggml_type, info.shape[-2:])
                added = squares * np.einsum("ij,ij->j", weights, weights, dtype=np.float64)
                if name in self._places.downs:
                    parts["expert_columns"][self._places.downs[name], matrix] = added
                else:
                    layer, part = self._places.outputs[name]
                    sums = parts[part][layer]
                    sums += added.reshape(len(sums), -1).sum(axis=1)  # heads are several inputs
        means = {part: sums / self._num_tokens for part, sums in parts.items()}
        return Scores(1 - self._cosines / self._num_tokens, means)

    def _add_squares(self, name: str, matrix: int, rows: _Rows) -> None:
        squares = np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        by_matrix = self._squares.setdefault(name, {})
        by_matrix[matrix] = by_matrix[matrix] + squares if matrix in by_matrix else squares

    def _boundary(self, stream: _Rows, layer: int) -> None:
        """The end of one block, and the start of the next."""
        if self._layer >= 0:
            dots = np.einsum("ij,ij->i", self._stream, stream, dtype=np.float64)
            lengths = np.linalg.norm(self._stream, axis=1) * np.linalg.norm(stream, axis=1)
            self._cosines[self._layer] += (dots / np.maximum(lengths, _EPSILON)).sum()
        self._stream = stream.copy()  # the engine goes on in its place
        self._layer = layer


class _Sender:
    """A router with its values."""

    def __init__(self, source: ModelSource, router: Router) -> None:
        def values(name: str) -> _Rows:
            info = source.tensors[name]
            return dequantize(source.raw(name), info.ggml_type, info.shape)

        self._routing = router.routing
        self._weight = values(router.weight)
        self._bias = 0 if router.bias is None else values(router.bias)
        self._choice_bias = None if router.routing.bias is None else values(router.routing.bias)

    def shares(self, rows: _Rows, expert: int) -> _Rows:
        """
        The weights [n] that an expert's answers to rows [n, width] get.

        The engine chose the expert, by scores that are rounded otherwise: it need not be among
        those chosen here, and gets what one of them would with its score.
        """
        scores = rows @ self._weight.T + self._bias
        chosen, taken = route(scores, self._routing, self._choice_bias)
        weights = expert_weights(scores, self._routing)
        first = np.take_along_axis(weights, chosen[:, :1], axis=-1)[:, 0]
        return np.asarray(weights[:, expert] * (taken[:, 0] / first), np.float32)
