"""Writes a model in fewer bits: any GGUF file or Hugging Face directory to a GGUF file.

Tensor by tensor, some 16 million weights at a time, so memory stays small whatever the model's
size.  The output is complete or not there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quintet.errors import ModelNotFoundError, RequestError
from quintet.formats.gguf_metadata import ValueType
from quintet.formats.gguf_writer import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    Field,
    GGUFWriter,
    file_size,
    tensor_info,
)
from quintet.formats.weights import TensorInfo
from quintet.tools.encode import encode
from quintet.tools.hf_source import HFSource
from quintet.tools.imatrix_file import Importances, read_imatrix
from quintet.tools.model_source import GGUFSource, ModelSource
from quintet.tools.output_file import check_disk, refuse_same_file
from quintet.tools.progress import Progress, Reporter
from quintet.tools.recipes import Recipe, choose_types, is_quantizable, recipe_named

_WEIGHTS_PER_CHUNK = 16 * 2**20
_QUANTIZATION_VERSION = 2  # of the block formats; GGML_QNT_VERSION in ggml.h


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor, before and after."""

    source: TensorInfo
    target: TensorInfo


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """
    What was written, or would be.

    Args:
        path: the output.
        type: the quantisation type.
        tensors: in file order.
        source_bytes, file_bytes: sizes of the input's and of the output's files.
        seconds: the work took; 0 of a dry run.
        without_importance: quantised tensors that the importance matrix does not know.
    """

    path: Path
    type: str
    tensors: tuple[TensorPlan, ...]
    source_bytes: int
    file_bytes: int
    seconds: float
    without_importance: tuple[str, ...] = ()

    @property
    def bits_per_weight(self) -> float:
        """Over all tensors."""
        num_weights = sum(_num_weights(each.target) for each in self.tensors)
        return 8 * sum(each.target.num_bytes for each in self.tensors) / max(num_weights, 1)


def quantize(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    type: str,
    *,
    imatrix: str | os.PathLike[str] | Importances | None = None,
    overrides: Mapping[str, str] | None = None,
    pure: bool = False,
    num_threads: int | None = None,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> QuantizeResult:
    """
    Quantise a model.

    Args:
        input: a GGUF file in any readable formats (a shard stands for all), or a Hugging Face
            directory.
        output: the GGUF file to write; replaced if it is there.
        type: a name of `recipes.RECIPES`, e.g. "Q4_K_M", in any case.
        imatrix: an importance matrix, as a file or read: see `imatrix_file`.
        overrides: format by regular expression, for tensors whose name it is found in.
        pure: the type's base format for all matrices, instead of its recipe.
        num_threads: None: one per physical core.
        dry_run: only say what would be written.
        progress: called before, during and after every tensor.

    Raises:
        ModelNotFoundError: no such input.
        ModelFormatError: the input breaks its format, or a weight is not finite.
        UnsupportedModelError: an input that cannot be read.
        RequestError: an unknown type or override, an importance matrix of another model, or an
            output that is the input.
        CapacityError: the disk has too little room.
        OSError: the output cannot be written.
    """
    recipe = recipe_named(type)
    importances = imatrix
    if imatrix is not None and not isinstance(imatrix, Importances):
        importances = read_imatrix(imatrix)
    with open_source(input) as source:
        return write_model(
            source,
            Path(output),
            recipe,
            imatrix=importances if isinstance(importances, Importances) else None,
            overrides=overrides,
            pure=pure,
            num_threads=num_threads,
            dry_run=dry_run,
            progress=progress,
        )


def open_source(path: str | os.PathLike[str]) -> ModelSource:
    """
    A GGUF file or a Hugging Face directory.

    Raises:
        ModelNotFoundError, ModelFormatError, UnsupportedModelError: what opening it may raise.
    """
    path = Path(path)
    if not path.exists():
        raise ModelNotFoundError(f"no such file or directory: {path}")
    return HFSource(path) if path.is_dir() else GGUFSource(path)


def write_model(
    source: ModelSource,
    output: Path,
    recipe: Recipe,
    *,
    imatrix: Importances | None = None,
    overrides: Mapping[str, str] | None = None,
    pure: bool = False,
    num_threads: int | None = None,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> QuantizeResult:
    """Write `source` as a GGUF file: see `quantize`."""
    start = time.perf_counter()
    refuse_same_file(source, output)
    types = choose_types(
        recipe,
        source.tensors,
        {key: field.value for key, field in source.fields.items()},
        overrides=overrides,
        has_imatrix=imatrix is not None,
        pure=pure,
    )
    plans = tuple(
        TensorPlan(info, tensor_info(name, info.shape, types[name]))
        for name, info in source.tensors.items()
    )
    fields = _fields(source.fields, recipe, imatrix)
    targets = [plan.target for plan in plans]
    alignment = int(fields[ALIGNMENT_KEY].value) if ALIGNMENT_KEY in fields else DEFAULT_ALIGNMENT
    num_bytes = file_size(fields, targets, alignment)
    missing = _check_imatrix(plans, imatrix)
    if not dry_run:
        check_disk(output, num_bytes)
        with GGUFWriter(output, fields, targets) as writer:
            report = Reporter([_num_weights(plan.source) for plan in plans], progress)
            for plan in plans:
                _write_tensor(source, plan, writer, imatrix, num_threads, report)
    return QuantizeResult(
        output,
        recipe.name,
        plans,
        sum(path.stat().st_size for path in source.paths),
        num_bytes,
        0.0 if dry_run else time.perf_counter() - start,
        missing,
    )


def _write_tensor(
    source: ModelSource,
    plan: TensorPlan,
    writer: GGUFWriter,
    imatrix: Importances | None,
    num_threads: int | None,
    report: Reporter,
) -> None:
    name, kind = plan.source.name, plan.target.ggml_type
    report.weights(name, 0)
    raw = source.raw(name)
    for first, count, matrix in _chunks(plan.source):
        importance = None
        if imatrix is not None and plan.source.ggml_type != kind and is_quantizable(plan.source):
            importance = imatrix.of(name, matrix)
        data = encode(
            raw[first : first + count],
            plan.source.ggml_type,
            _row_size(plan.source),
            kind,
            importance=importance,
            num_threads=num_threads,
            name=name,
        )
        writer.write(name, data)
        info = plan.source
        report.weights(name, count // info.ggml_type.block_bytes * info.ggml_type.block_size)
    report.tensor(name)


def _chunks(info: TensorInfo) -> Iterator[tuple[int, int, int]]:
    """Runs of whole rows within one matrix: first byte, bytes, and the matrix's place."""
    row_bytes = _row_size(info) // info.ggml_type.block_size * info.ggml_type.block_bytes
    rows = info.shape[-2] if len(info.shape) > 1 else 1
    num_matrices = _num_weights(info) // max(rows * _row_size(info), 1)
    step = max(1, _WEIGHTS_PER_CHUNK // max(_row_size(info), 1))
    for matrix in range(num_matrices):
        for row in range(0, rows, step):
            count = min(step, rows - row)
            yield (matrix * rows + row) * row_bytes, count * row_bytes, matrix


def _row_size(info: TensorInfo) -> int:
    return info.shape[-1] if info.shape else 1


def _num_weights(info: TensorInfo) -> int:
    return int(np.prod(info.shape, dtype=np.int64))


def _fields(
    fields: Mapping[str, Field], recipe: Recipe, imatrix: Importances | None
) -> dict[str, Field]:
    """The output's metadata: the input's, and what was done to it."""
    result = dict(fields)
    result["general.file_type"] = Field(ValueType.UINT32, recipe.file_type)
    if recipe.base.block_size > 1:
        result["general.quantization_version"] = Field(ValueType.UINT32, _QUANTIZATION_VERSION)
    if imatrix is not None:
        # The keys that llama-quantize writes.
        result["quantize.imatrix.file"] = Field.of(imatrix.file)
        result["quantize.imatrix.dataset"] = Field.of(imatrix.dataset)
        result["quantize.imatrix.entries_count"] = Field.of(len(imatrix.names))
        result["quantize.imatrix.chunks_count"] = Field.of(imatrix.num_chunks)
    return result


def _check_imatrix(plans: tuple[TensorPlan, ...], imatrix: Importances | None) -> tuple[str, ...]:
    """Names without importance; refuses widths that are another model's."""
    if imatrix is None:
        return ()
    missing = []
    for plan in plans:
        info = plan.source
        if not is_quantizable(info) or plan.target.ggml_type.block_size == 1:
            continue
        if info.name not in imatrix.names:
            missing.append(info.name)
            continue
        shape = imatrix.shape(info.name)
        num_matrices = _num_weights(info) // (info.shape[-2] * info.shape[-1])
        if shape != (num_matrices, info.shape[-1]):
            raise RequestError(
                f"the importance matrix has {shape[0]} x {shape[1]} values for {info.name}, the "
                f"model needs {num_matrices} x {info.shape[-1]}: it is another model's",
                parameter="imatrix",
            )
    return tuple(missing)
