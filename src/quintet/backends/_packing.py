"""Which layout each weight is packed into, and the packing.

Every matrix type with a layout is held without loss, in no more than 5 % more bytes than the file;
those of `_widening` take the nearest layout, up to 2.3 times the bytes.
"""

from __future__ import annotations

import math
import os
import resource
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from quintet._native import Layout, Plan, SourceType
from quintet.backends._packed_cache import PackedCache
from quintet.backends._widening import SUPER_BLOCK, WIDENED
from quintet.errors import CapacityError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.weights import TensorInfo, WeightSource

WeightDtype: TypeAlias = Literal["auto", "float32", "bfloat16", "int8"]

GROUP = 32  # weights per scale of the quantised layouts

# Read as they lie in the file.
_NATIVE: dict[GGMLType, tuple[SourceType, Layout]] = {
    GGMLType.F32: (SourceType.F32, Layout.F32),
    GGMLType.F16: (SourceType.F16, Layout.F16),
    GGMLType.BF16: (SourceType.BF16, Layout.BF16),
    GGMLType.Q8_0: (SourceType.Q8_0, Layout.W8),
    GGMLType.Q4_0: (SourceType.Q4_0, Layout.W4),
    GGMLType.Q4_1: (SourceType.Q4_1, Layout.W4M),
    GGMLType.Q5_0: (SourceType.Q5_0, Layout.W5),
    GGMLType.Q5_1: (SourceType.Q5_1, Layout.W5M),
    GGMLType.Q4_K: (SourceType.Q4_K, Layout.W4K),
    GGMLType.Q5_K: (SourceType.Q5_K, Layout.W5K),
    GGMLType.Q6_K: (SourceType.Q6_K, Layout.W6K),
    GGMLType.Q3_K: (SourceType.Q3_K, Layout.W3K),
    GGMLType.Q2_K: (SourceType.Q2_K, Layout.W2K),
    GGMLType.IQ4_NL: (SourceType.IQ4_NL, Layout.W4N),
    GGMLType.IQ4_XS: (SourceType.IQ4_XS, Layout.W4X),
    GGMLType.MXFP4: (SourceType.MXFP4, Layout.W4E),
}
_FORCED: dict[WeightDtype, Layout] = {
    "float32": Layout.F32,
    "bfloat16": Layout.BF16,
    "int8": Layout.W8,
}


def choose_layout(info: TensorInfo, dtype: WeightDtype) -> Layout:
    """The layout a matrix is packed into.

    Args:
        dtype: "auto" keeps the file's own type where there is a layout for it.
    """
    layout = _own_layout(info) if dtype == "auto" else _FORCED[dtype]
    if layout is Layout.W8 and info.shape[-1] % GROUP:
        return Layout.F32
    return layout


def _own_layout(info: TensorInfo) -> Layout:
    if info.ggml_type in _NATIVE:
        return _NATIVE[info.ggml_type][1]
    # NVFP4's rows may be an odd number of blocks of 64.
    if info.ggml_type in WIDENED and info.shape[-1] % SUPER_BLOCK == 0:
        return WIDENED[info.ggml_type].layout
    return Layout.W8


class PackedWeights:
    """A program's weights in a plan: matrices added on first use and packed by `pack`, all at once.

    Args:
        source: the model's weights under the names the program uses.
    """

    def __init__(self, source: WeightSource, plan: Plan, dtype: WeightDtype) -> None:
        self._source = source
        self._plan = plan
        self._dtype = dtype
        self._matrices: dict[str, int] = {}
        self._vectors: dict[str, int] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.tensors[name].shape

    def layout(self, name: str) -> Layout:
        return choose_layout(self._source.tensors[name], self._dtype)

    def matrix(self, name: str) -> int:
        """The plan's number for a matrix [n, k]; of experts [e, n, k], for that of [e * n, k]."""
        if name not in self._matrices:
            *rows, k = self._source.tensors[name].shape
            n = math.prod(rows)
            self._matrices[name] = self._plan.add_matrix(n, k, self.layout(name))
        return self._matrices[name]

    def vector(self, name: str) -> int:
        """The plan's number for a vector, as float32."""
        if name not in self._vectors:
            values = np.ascontiguousarray(self._source.dequantized(name).ravel(), np.float32)
            self._vectors[name] = self._plan.add_vector(values)
        return self._vectors[name]

    def load(self, cache: PackedCache | None = None, *, lock: bool = False) -> None:
        """Give all matrices their weights: from the cache, or packed, and then kept there.

        Args:
            lock: keep them in physical memory.

        Raises:
            MemoryError: they do not fit.
            CapacityError: they may not be locked.
        """
        names = list(self._matrices)
        is_cached = cache is not None and cache.read_into(self._plan, names)
        if not is_cached:
            self._plan.allocate_weights()
        if lock:
            _lock(self._plan)
        if not is_cached:
            self._pack()
            if cache is not None:
                cache.write_from(self._plan, names)

    def _pack(self) -> None:
        """Pack all matrices.

        One native call for all that need no conversion: it keeps off the interpreter, which reads
        the tokenizer meanwhile.  What is converted is in memory one matrix at a time.
        """
        moved = []
        for name, matrix in self._matrices.items():
            native = _NATIVE.get(self._source.tensors[name].ggml_type)
            if native is None or native[1] is not self.layout(name):
                continue
            moved.append((matrix, name, native[0]))
        if self._source.is_mapped:
            sources = [(matrix, self._source.raw(name), kind) for matrix, name, kind in moved]
            self._plan.pack(sources, is_mapped=True)
        else:
            for matrix, name, kind in moved:
                self._plan.pack([(matrix, self._source.raw(name), kind)], is_mapped=False)
        for name in self._matrices.keys() - {name for _, name, _ in moved}:
            source, kind = self._converted(name)
            self._plan.pack([(self._matrices[name], source, kind)], is_mapped=False)

    def _converted(self, name: str) -> tuple[npt.NDArray[np.uint8], SourceType]:
        """A matrix that is not packed from its own type, as bytes of one that can be."""
        widening = WIDENED.get(self._source.tensors[name].ggml_type)
        if widening is not None and widening.layout is self.layout(name):
            return widening(self._source.raw(name)), widening.source
        values = np.ascontiguousarray(self._source.dequantized(name), np.float32)
        return values.ravel().view(np.uint8), SourceType.F32


def _lock(plan: Plan) -> None:
    """Keep a plan's packed weights in physical memory.

    Raises:
        CapacityError: this process may not lock so much; says how much it may.
    """
    error = plan.lock_weights()
    if error == 0:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    allowed = "any number of" if limit == resource.RLIM_INFINITY else limit
    raise CapacityError(
        f"use_mlock: {plan.weight_bytes} bytes of weights cannot be locked in memory "
        f"({os.strerror(error)}): this process may lock {allowed} bytes; raise the limit "
        "(ulimit -l, LimitMEMLOCK=), or run without it",
        resource="locked memory",
    )
