"""What memory a model will take, and which quantisation of it fits.

Weights and buffers are asked of the compiled plan, so they are what the engine will allocate; the
KV cache is blocks times their size.  Nothing of it is allocated or read.  What the process itself
takes is measured: see `footprint`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quintet.backends import block_bytes, resolve_kv_dtype
from quintet.backends.base import BLOCK_SIZE
from quintet.backends.load import executor_memory
from quintet.config import EngineConfig
from quintet.errors import ContextLengthError, RequestError
from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_writer import tensor_info
from quintet.formats.model_file import open_model_file
from quintet.formats.weights import SourceIdentity, TensorInfo, WeightSource
from quintet.models import Model, load_model
from quintet.tools.footprint import measure_footprint
from quintet.tools.recipes import RECIPES, choose_types

CacheDtype = Literal["auto", "float32", "bfloat16", "int8"]

# F32 is no quantisation, the file of MXFP4_MOE is Q8_0 where there are no experts, and a K type of
# about the same size is closer to the original than one of the older types.
_NOT_RECOMMENDED = ("F32", "MXFP4_MOE", "Q5_1", "Q5_0", "Q4_1", "Q4_0")


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    Bytes of memory.

    Args:
        weight_bytes: packed for the kernels.
        cache_bytes: the KV cache.
        buffer_bytes: intermediate results, of the largest step.
        process_bytes: the interpreter, libraries and the tokenizer.
    """

    weight_bytes: int
    cache_bytes: int
    buffer_bytes: int
    process_bytes: int

    @property
    def total_bytes(self) -> int:
        """All together."""
        return self.weight_bytes + self.cache_bytes + self.buffer_bytes + self.process_bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """
    One quantisation type of a model.

    Args:
        type: its name.
        file_bytes: of its tensors.
        estimate: of running it.
        fits: whether that is within the budget.
    """

    type: str
    file_bytes: int
    estimate: Estimate
    fits: bool


def estimate(
    model: str | os.PathLike[str],
    *,
    context: int | None = None,
    batch: int = 1,
    kv_dtype: CacheDtype = "auto",
) -> Estimate:
    """
    The memory a model takes on the CPU.

    Args:
        model: a GGUF file or a Hugging Face directory.
        context: tokens of each sequence; None: as many as the model was made for.
        batch: sequences at a time.
        kv_dtype: see `ModelOptions`.

    Raises:
        ModelNotFoundError, ModelFormatError, UnsupportedModelError: it cannot be read.
        ContextLengthError: `context` is beyond the model's own.
        RequestError: a context or batch below 1.
        EngineError: what the process takes could not be measured.
    """
    path = Path(model)
    with open_model_file(path) as source:
        found = _estimate(load_model(source), context, batch, kv_dtype)
    return replace(found, process_bytes=measure_footprint(path))


def recommend(
    model: str | os.PathLike[str],
    memory_bytes: int,
    *,
    context: int | None = None,
    batch: int = 1,
    kv_dtype: CacheDtype = "auto",
) -> list[Choice]:
    """
    All quantisation types of a model, best first: the first that fits is the one to take.

    Args:
        model: a GGUF file or a Hugging Face directory; its own formats do not matter.
        memory_bytes: the budget.
        context, batch, kv_dtype: see `estimate`.

    Raises: as for `estimate`.
    """
    choices = []
    path = Path(model)
    with open_model_file(path) as source:
        loaded = load_model(source)
        process_bytes = measure_footprint(path)
        metadata = source.metadata if isinstance(source, GGUFFile) else _metadata(loaded)
        tensors = loaded.weights.tensors
        for name in (each for each in RECIPES if each not in _NOT_RECOMMENDED):
            types = choose_types(RECIPES[name], tensors, metadata)
            infos = {key: tensor_info(key, info.shape, types[key]) for key, info in tensors.items()}
            retyped = replace(loaded, weights=_Retyped(loaded.weights, infos))
            found = _estimate(retyped, context, batch, kv_dtype)
            found = replace(found, process_bytes=process_bytes)
            file_bytes = sum(info.num_bytes for info in infos.values())
            choices.append(Choice(name, file_bytes, found, found.total_bytes <= memory_bytes))
    return sorted(choices, key=lambda choice: -choice.file_bytes)


class _Retyped:
    """Weights as they would be in other formats: what a plan is compiled from."""

    def __init__(self, source: WeightSource, infos: Mapping[str, TensorInfo]) -> None:
        self._source = source
        self.tensors = infos

    @property
    def identity(self) -> SourceIdentity:
        return self._source.identity

    @property
    def is_mapped(self) -> bool:
        return self._source.is_mapped

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        raise NotImplementedError("these weights were never written")

    def dequantized(self, name: str) -> npt.NDArray[np.float32]:
        return self._source.dequantized(name)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> _Retyped:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _metadata(model: Model) -> Mapping[str, Any]:
    """What recipes ask of the metadata, of a model that has none of GGUF's."""
    config = model.config
    prefix = f"{config.architecture}."
    return {
        "general.architecture": config.architecture,
        prefix + "block_count": config.num_layers,
        prefix + "attention.head_count": config.num_heads,
        prefix + "attention.head_count_kv": getattr(config, "num_kv_heads", config.num_heads),
    }


def _estimate(model: Model, context: int | None, batch: int, kv_dtype: CacheDtype) -> Estimate:
    """All but what the process takes."""
    limit = model.config.context_length
    context = limit if context is None else context
    if context > limit:
        raise ContextLengthError(context, limit, parameter="context")
    for name, value in (("context", context), ("batch", batch)):
        if value < 1:
            raise RequestError(f"expected at least 1, found {value}", parameter=name)
    config = EngineConfig(max_num_seqs=batch)
    weight_bytes, buffer_bytes = executor_memory(
        model,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_logits_rows=config.max_logits_rows,
    )
    num_blocks = -(-context // BLOCK_SIZE) * batch
    return Estimate(
        weight_bytes,
        num_blocks * block_bytes(model, resolve_kv_dtype("auto", kv_dtype)),
        buffer_bytes,
        0,
    )
