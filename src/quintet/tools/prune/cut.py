"""What cutting a model makes of each tensor: which rows and columns stay, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from quintet.errors import UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf_writer import tensor_info
from quintet.formats.quants import dequantize
from quintet.formats.weights import TensorInfo
from quintet.tools.encode import encode
from quintet.tools.model_source import ModelSource
from quintet.tools.prune.anatomy import BLOCK_NAME, Anatomy, Axes, Part, Sizes, Spans
from quintet.tools.prune.scores import Array, Scores
from quintet.tools.recipes import TENSOR_TYPES, fitting

Indices: TypeAlias = npt.NDArray[np.intp]

_WEIGHTS_PER_CHUNK = 16 * 2**20
# Tensors that queries are made with; of the first pair that a model has.
_QUERIES = (("attn_q_norm.weight",), ("attn_q.weight", "attn_q.bias"))


@dataclass(frozen=True, slots=True)
class Cut:
    """
    A tensor, before and after.

    Args:
        axes: of the tensor before, as a stack of matrices.
        matrices: those kept; None where all are.
        rows, columns: those kept of each kept matrix; None where all are.
        factor: multiplies the weights.
    """

    source: TensorInfo
    target: TensorInfo
    axes: Axes | None = None
    matrices: Indices | None = None
    rows: tuple[Indices, ...] | None = None
    columns: tuple[Indices, ...] | None = None
    factor: float = 1.0

    @property
    def keeps_blocks(self) -> bool:
        """Whether no weight is rounded anew."""
        return self.factor == 1 and (
            self.columns is None
            or all(_blocks(self.source.ggml_type, each) is not None for each in self.columns)
        )


class Choice:
    """Which parts stay, and what that makes of each tensor."""

    def __init__(
        self,
        anatomy: Anatomy,
        after: Sizes,
        scores: Scores,
        layers: tuple[int, ...],
        num_expert_groups: int,
    ) -> None:
        """
        Args:
            anatomy: of the model before.
            after: what will be left.
            layers: the blocks that stay.
            num_expert_groups: of neighbours, as many of each of which stay.
        """
        self._anatomy = anatomy
        self._numbers = {old: new for new, old in enumerate(layers)}
        self._kept: dict[Part, Indices] = {}
        before = anatomy.sizes
        counts: Mapping[Part, tuple[int, int]] = {
            "heads": (before.num_kv_heads, after.num_kv_heads),
            "columns": (before.feed_forward, after.feed_forward),
            "experts": (before.num_experts, after.num_experts),
            "expert_columns": (before.expert_feed_forward, after.expert_feed_forward),
            "shared_columns": (before.shared_feed_forward, after.shared_feed_forward),
        }
        for part, (count, kept) in counts.items():
            if kept < count:
                groups = num_expert_groups if part == "experts" else 1
                self._kept[part] = _best(scores.parts[part], kept, groups)

    def cut(self, info: TensorInfo) -> Cut | None:
        """What becomes of a tensor; None if it goes with its block."""
        match = BLOCK_NAME.fullmatch(info.name)
        if match is None:
            return Cut(info, info)
        layer, rest = int(match.group(1)), match.group(2)
        if layer not in self._numbers:
            return None
        name = f"blk.{self._numbers[layer]}.{rest}"
        axes = self._anatomy.axes(rest, info)
        matrices = self._places(axes.matrices, layer, 0)
        stack = range(axes.shape[0]) if matrices is None else matrices
        rows = self._of_each(axes.rows, layer, stack)
        columns = self._of_each(axes.columns, layer, stack)
        shape = list(info.shape)
        if matrices is not None:
            shape[0] = len(matrices)
        if rows is not None:
            shape[-2] = len(rows[0])
        if columns is not None:
            shape[-1] = len(columns[0])
        found = Cut(info, info, axes, matrices, rows, columns)
        kind = info.ggml_type if found.keeps_blocks else writable(info.ggml_type, shape[-1])
        return Cut(info, tensor_info(name, shape, kind), axes, matrices, rows, columns)

    def _of_each(
        self, spans: Spans, layer: int, stack: range | Indices
    ) -> tuple[Indices, ...] | None:
        found = [self._places(spans, layer, int(matrix)) for matrix in stack]
        kept = tuple(each for each in found if each is not None)
        return kept or None

    def _places(self, spans: Spans, layer: int, matrix: int) -> Indices | None:
        """The places along an axis that stay; None where all do."""
        if not any(span.part in self._kept for span in spans):
            return None
        places, start = [], 0
        for span in spans:
            kept = np.arange(span.count)
            if span.part in self._kept:
                kept = self._kept[span.part][layer]
                kept = kept[matrix] if span.part == "expert_columns" else kept
            places.append(start + (kept[:, None] * span.unit + np.arange(span.unit)).ravel())
            start += span.count * span.unit
        return np.concatenate(places)


def with_scaled_queries(cuts: list[Cut], factor: float) -> list[Cut]:
    """
    The same, with what makes queries multiplied: the norm of each head's query where there is one.

    Raises:
        UnsupportedModelError: it is one matrix with that of keys and values.
    """
    names = {BLOCK_NAME.fullmatch(cut.source.name) for cut in cuts}
    kinds = {match.group(2) for match in names if match}
    scaled = next((each for each in _QUERIES if kinds.issuperset(each[:1])), None)
    if scaled is None:
        raise UnsupportedModelError("cut of a model", "whose queries would have to be scaled")

    def changed(cut: Cut) -> Cut:
        match = BLOCK_NAME.fullmatch(cut.source.name)
        if match is None or match.group(2) not in scaled:
            return cut
        kind = writable(cut.target.ggml_type, cut.target.shape[-1])
        target = tensor_info(cut.target.name, cut.target.shape, kind)
        return replace(cut, target=target, factor=factor)

    return [changed(cut) for cut in cuts]


def _best(scores: Array, count: int, num_groups: int) -> Indices:
    """[..., n] -> [..., count]: places of the largest, in order, as many of each group of
    neighbours; of equals the first."""
    groups = scores.reshape(*scores.shape[:-1], num_groups, -1)
    order = np.argsort(-groups, axis=-1, kind="stable")[..., : count // num_groups]
    starts = np.arange(num_groups)[:, None] * groups.shape[-1]
    return (np.sort(order, axis=-1) + starts).reshape(*scores.shape[:-1], count)


def _blocks(kind: GGMLType, columns: Indices) -> Indices | None:
    """The blocks of weights that these columns are, if they are whole ones."""
    size = kind.block_size
    if len(columns) % size:
        return None
    blocks = columns[::size] // size
    expected = (blocks[:, None] * size + np.arange(size)).ravel()
    return blocks if np.array_equal(columns, expected) else None


def writable(ggml_type: GGMLType, width: int) -> GGMLType:
    """The format itself, or one of no fewer bits that we write and that rows of `width` allow."""
    if ggml_type not in TENSOR_TYPES:
        bits = ggml_type.block_bytes / ggml_type.block_size
        ggml_type = min(
            (kind for kind in TENSOR_TYPES if kind.block_bytes / kind.block_size >= bits),
            key=lambda kind: (kind.block_bytes / kind.block_size, -kind.block_size),
        )
    return fitting(ggml_type, width)


def cut_data(
    source: ModelSource, cut: Cut, num_threads: int | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """The tensor's new bytes, some rows at a time."""
    raw = source.raw(cut.source.name)
    is_whole = cut.matrices is None and cut.rows is None and cut.columns is None
    if cut.axes is None or (is_whole and cut.factor == 1):
        yield raw
        return
    num_matrices, num_rows, width = cut.axes.shape
    stack = raw.reshape(num_matrices, num_rows, -1)
    matrices = range(num_matrices) if cut.matrices is None else cut.matrices.tolist()
    step = max(1, _WEIGHTS_PER_CHUNK // width)
    for i, matrix in enumerate(matrices):
        rows = np.arange(num_rows) if cut.rows is None else cut.rows[i]
        columns = None if cut.columns is None else cut.columns[i]
        for first in range(0, len(rows), step):
            part = stack[matrix][rows[first : first + step]]
            yield _columns(part, cut, columns, num_threads)


def _columns(
    rows: npt.NDArray[np.uint8], cut: Cut, columns: Indices | None, num_threads: int | None
) -> npt.NDArray[np.uint8]:
    """Rows [n, num_bytes] with these columns only, multiplied, flat."""
    kind = cut.source.ggml_type
    if columns is None and cut.factor == 1:
        return rows.reshape(-1)
    if columns is not None and cut.keeps_blocks:
        blocks = rows.reshape(len(rows), -1, kind.block_bytes)
        return np.ascontiguousarray(blocks[:, _blocks(kind, columns)]).reshape(-1)
    width = rows.shape[1] // kind.block_bytes * kind.block_size
    values = dequantize(rows.reshape(-1), kind, (len(rows), width))
    values = values if columns is None else values[:, columns]
    return encode(
        np.ascontiguousarray(values * np.float32(cut.factor)).reshape(-1).view(np.uint8),
        GGMLType.F32,
        values.shape[1],
        cut.target.ggml_type,
        num_threads=num_threads,
        name=cut.target.name,
    )
