"""What cutting a model makes of each tensor: which rows and columns stay, and their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf_writer import tensor_info
from quintet.formats.quants import dequantize
from quintet.formats.weights import TensorInfo
from quintet.tools.encode import encode
from quintet.tools.model_source import ModelSource
from quintet.tools.prune_scores import Scores, Sizes
from quintet.tools.recipes import TENSOR_TYPES, fitting

Indices: TypeAlias = npt.NDArray[np.intp]

BLOCK_NAME = re.compile(r"blk\.(\d+)\.(.+)")
_WEIGHTS_PER_CHUNK = 16 * 2**20
# Of a block, what loses outputs and what loses inputs.
_FFN_ROWS = ("ffn_gate", "ffn_up")
_FFN_COLUMNS = ("ffn_down",)
_HEAD_ROWS = ("attn_q", "attn_k", "attn_v")
_HEAD_COLUMNS = ("attn_output",)
_KEPT = ("attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm")
# All tensors of a block that are known how to cut, without their ".weight" or ".bias".
KNOWN_KINDS = _FFN_ROWS + _FFN_COLUMNS + _HEAD_ROWS + _HEAD_COLUMNS + _KEPT


@dataclass(frozen=True, slots=True)
class Cut:
    """A tensor, before and after; rows and columns are those kept, None where all are.

    A vector is a matrix of one row.
    """

    source: TensorInfo
    target: TensorInfo
    rows: Indices | None
    columns: Indices | None

    @property
    def keeps_blocks(self) -> bool:
        return self.columns is None or _blocks(self.source, self.columns) is not None


class Choice:
    """Which parts stay, and what that makes of each tensor."""

    def __init__(self, before: Sizes, after: Sizes, scores: Scores) -> None:
        self._before = before
        self.layers: tuple[int, ...] = tuple(_best(scores.blocks, after.num_layers).tolist())
        self._numbers = {old: new for new, old in enumerate(self.layers)}
        self._columns = self._groups = None
        if after.feed_forward < before.feed_forward:
            self._columns = [_best(row, after.feed_forward) for row in scores.columns]
        if after.num_kv_heads < before.num_kv_heads:
            self._groups = [_best(row, after.num_kv_heads) for row in scores.groups]

    def cut(self, info: TensorInfo) -> Cut | None:
        """What becomes of a tensor; None if it goes with its block."""
        match = BLOCK_NAME.fullmatch(info.name)
        if match is None:
            return Cut(info, info, None, None)
        layer, rest = int(match.group(1)), match.group(2)
        if layer not in self._numbers:
            return None
        kind = rest.rpartition(".")[0]
        rows = columns = None
        if self._columns is not None and kind in _FFN_ROWS:
            rows = self._columns[layer]
        elif self._columns is not None and kind in _FFN_COLUMNS:
            columns = self._columns[layer]
        elif self._groups is not None and kind in _HEAD_ROWS + _HEAD_COLUMNS:
            has_all_heads = kind in ("attn_q", "attn_output")
            num_heads = self._before.num_heads if has_all_heads else self._before.num_kv_heads
            width = num_heads // self._before.num_kv_heads * self._before.head_dim
            kept = (self._groups[layer][:, None] * width + np.arange(width)).ravel()
            rows, columns = (None, kept) if kind in _HEAD_COLUMNS else (kept, None)
        if len(info.shape) == 1:
            rows, columns = None, rows  # the bias of an output matrix stays whole
        shape = list(info.shape)
        if rows is not None:
            shape[-2] = len(rows)
        ggml_type = info.ggml_type
        if columns is not None:
            shape[-1] = len(columns)
            if _blocks(info, columns) is None:
                ggml_type = writable(ggml_type, len(columns))
        name = f"blk.{self._numbers[layer]}.{rest}"
        return Cut(info, tensor_info(name, shape, ggml_type), rows, columns)


def _best(scores: npt.NDArray[np.float64], count: int) -> Indices:
    """Places of the `count` largest, in order; of equals the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _blocks(info: TensorInfo, columns: Indices) -> Indices | None:
    """The blocks of weights that these columns are, if they are whole ones."""
    size = info.ggml_type.block_size
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
    info, raw = cut.source, source.raw(cut.source.name)
    if cut.rows is None and cut.columns is None:
        yield raw
        return
    kind, width = info.ggml_type, info.shape[-1]
    num_rows = info.shape[-2] if len(info.shape) > 1 else 1
    matrix = raw.reshape(num_rows, -1)
    blocks = None if cut.columns is None else _blocks(info, cut.columns)
    rows = np.arange(num_rows) if cut.rows is None else cut.rows
    step = max(1, _WEIGHTS_PER_CHUNK // width)
    for first in range(0, len(rows), step):
        part = matrix[rows[first : first + step]]
        if blocks is not None:
            shaped = part.reshape(len(part), -1, kind.block_bytes)
            part = shaped[:, blocks]
        elif cut.columns is not None:
            values = dequantize(part.ravel(), kind, (len(part), width))[:, cut.columns]
            part = encode(
                np.ascontiguousarray(values).reshape(-1).view(np.uint8),
                GGMLType.F32,
                len(cut.columns),
                cut.target.ggml_type,
                num_threads=num_threads,
                name=cut.target.name,
            )
        yield np.ascontiguousarray(part).reshape(-1)
