"""How much main memory a model will take, and which quantisation of it fits in how much.

Weights and buffers are what the compiled plan says it will allocate, the KV cache is what the
engine sizes it to, the rest is measured: see `footprint`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from quintet.backends import block_bytes, executor_memory, resolve_kv_dtype
from quintet.backends.base import BLOCK_SIZE
from quintet.config import EngineConfig
from quintet.errors import ContextLengthError, RequestError, UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.formats.weights import SourceIdentity, TensorInfo, WeightSource
from quintet.models import Model, load_model
from quintet.tools.footprint import measure_footprint
from quintet.tools.quantize import open_source, write_model
from quintet.tools.recipes import recipe_named

KVDtype: TypeAlias = Literal["auto", "bfloat16", "float32", "int8"]

# The best first.  Types that another one beats in both size and quality are left out.
CANDIDATES = (
    "F16",
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q5_K_S",
    "Q4_K_M",
    "Q4_K_S",
    "IQ4_XS",
    "Q3_K_L",
    "Q3_K_M",
    "Q3_K_S",
    "Q2_K",
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    Main memory in bytes, of a process that runs one model on the CPU with its cache full.

    Args:
        context: tokens of prompt and answer together.
        batch: sequences that run at a time.
        weight_bytes: packed.
        kv_bytes: KV cache of `batch` full contexts.
        buffer_bytes: intermediate results of the largest step.
        process_bytes: the interpreter, its libraries and the tokenizer.
    """

    context: int
    batch: int
    weight_bytes: int
    kv_bytes: int
    buffer_bytes: int
    process_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weight_bytes + self.kv_bytes + self.buffer_bytes + self.process_bytes


@dataclass(frozen=True, slots=True)
class Option:
    """
    One way to have a model.

    Args:
        type: a quantisation type; None: the file as it is.
        file_bytes: of the file.
        estimate: memory it takes.
        fits: whether the budget holds that.
    """

    type: str | None
    file_bytes: int
    estimate: Estimate
    fits: bool


@dataclass(frozen=True, slots=True)
class Recommendation:
    """
    Ways to have a model, the best first.

    Args:
        memory: the budget, in bytes.
        options: the file as it is, then the quantisations that are smaller.
    """

    memory: int
    options: tuple[Option, ...]

    @property
    def best(self) -> Option | None:
        """The best that fits; None if none does."""
        return next((option for option in self.options if option.fits), None)


def estimate(
    model: str | os.PathLike[str],
    *,
    context: int | None = None,
    batch: int = 1,
    kv_dtype: KVDtype = "auto",
    max_num_batched_tokens: int | None = None,
) -> Estimate:
    """
    The memory that a model will take, without loading it.

    Args:
        model: a GGUF file or a Hugging Face directory.
        context: tokens of a sequence; None: all the model has.
        batch: sequences that run at a time: the engine's `max_num_seqs`.
        kv_dtype: of the KV cache, as for `LLM`.
        max_num_batched_tokens: of a step; None: the engine's default.

    Raises:
        ModelNotFoundError, ModelFormatError: it cannot be read.
        UnsupportedModelError: it cannot be run, or writes no text.
        ContextLengthError: `context` is beyond the model's own.
        RequestError: another value out of range.
        EngineError: the tokenizer could not be measured.
    """
    path = Path(model)
    with _open(path) as source:
        loaded = _generator(source)
        plan = _Plan(loaded, context, batch, kv_dtype, max_num_batched_tokens)
        return plan.estimate(loaded, measure_footprint(path))


def recommend(
    model: str | os.PathLike[str],
    memory: int,
    *,
    context: int | None = None,
    batch: int = 1,
    kv_dtype: KVDtype = "auto",
    max_num_batched_tokens: int | None = None,
) -> Recommendation:
    """
    The best quantisation of a model for a budget.

    Args:
        model: a GGUF file or a Hugging Face directory.  What is quantised already loses more when
            it is quantised again: give the original where there is one.
        memory: bytes that the whole process may take.

    Other args and raises: as for `estimate`, and
        RequestError: `memory` below 1.
    """
    if memory < 1:
        raise RequestError(f"expected at least 1 byte, found {memory}", parameter="memory")
    path = Path(model)
    options = []
    with _open(path) as opened, open_source(path) as source:
        loaded = _generator(opened)
        plan = _Plan(loaded, context, batch, kv_dtype, max_num_batched_tokens)
        process_bytes = measure_footprint(path)

        def add(name: str | None, file_bytes: int, candidate: Model) -> None:
            found = plan.estimate(candidate, process_bytes)
            options.append(Option(name, file_bytes, found, found.total_bytes <= memory))

        source_bytes = sum(each.stat().st_size for each in source.paths)
        add(None, source_bytes, loaded)
        for name in CANDIDATES:
            result = write_model(source, Path(os.devnull), recipe_named(name), dry_run=True)
            if result.file_bytes < source_bytes:
                targets = {each.target.name: each.target for each in result.tensors}
                weights = _Requantized(loaded.weights, targets)
                add(name, result.file_bytes, dataclasses.replace(loaded, weights=weights))
    return Recommendation(memory, tuple(options))


class _Plan:
    """How the model is to be run, whatever its number formats."""

    def __init__(
        self,
        model: Model,
        context: int | None,
        batch: int,
        kv_dtype: KVDtype,
        max_num_batched_tokens: int | None,
    ) -> None:
        longest = model.config.context_length
        self.context = longest if context is None else context
        if self.context < 1:
            raise RequestError(f"expected at least 1, found {context}", parameter="context")
        if self.context > longest:
            raise ContextLengthError(self.context, longest, parameter="context")
        if batch < 1:
            raise RequestError(f"expected at least 1, found {batch}", parameter="batch")
        if max_num_batched_tokens is None:
            max_num_batched_tokens = max(batch, EngineConfig().max_num_batched_tokens)
        config = EngineConfig(max_num_seqs=batch, max_num_batched_tokens=max_num_batched_tokens)
        self.batch = batch
        self._config = config
        num_blocks = batch * -(-self.context // BLOCK_SIZE)
        self._kv_bytes = num_blocks * block_bytes(model, resolve_kv_dtype("auto", kv_dtype))

    def estimate(self, model: Model, process_bytes: int) -> Estimate:
        weight_bytes, buffer_bytes = executor_memory(
            model,
            max_num_batched_tokens=self._config.max_num_batched_tokens,
            max_logits_rows=self._config.max_logits_rows,
        )
        return Estimate(
            self.context, self.batch, weight_bytes, self._kv_bytes, buffer_bytes, process_bytes
        )


class _Requantized:
    """Weights as they will be in other number formats: what a plan asks before it packs them."""

    def __init__(self, source: WeightSource, targets: Mapping[str, TensorInfo]) -> None:
        self._source = source
        self.tensors: Mapping[str, TensorInfo] = {
            name: targets.get(name, info) for name, info in source.tensors.items()
        }

    @property
    def identity(self) -> SourceIdentity:
        return self._source.identity

    @property
    def is_mapped(self) -> bool:
        return self._source.is_mapped

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        return self._source.raw(name)

    def dequantized(self, name: str) -> npt.NDArray[np.float32]:
        return self._source.dequantized(name)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> _Requantized:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> GGUFFile | SafetensorsDir:
    is_safetensors = path.is_dir() or path.suffix == ".safetensors"
    return SafetensorsDir.open(path) if is_safetensors else GGUFFile.open(path)


def _generator(source: GGUFFile | SafetensorsDir) -> Model:
    model = load_model(source)
    if model.head != "logits":
        name = source.path if isinstance(source, GGUFFile) else source.directory
        raise UnsupportedModelError("model that writes no text", name.name)
    return model
