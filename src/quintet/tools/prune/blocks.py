"""Which blocks stay, where a block is not like any other.

A file gives the number of blocks, and readers know from a block's place whether it sees a window or
rotates its queries: see `kinds`.  A block may so only move to a place of its own kind.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from quintet.formats.gguf_writer import Field
from quintet.formats.quants import dequantize
from quintet.formats.weights import TensorInfo, WeightSource
from quintet.models import AnyConfig, Config, config_of_gguf
from quintet.tools.model_source import ModelSource

Kinds: TypeAlias = tuple[Hashable, ...]
_PATTERN = ".attention.sliding_window_pattern"


class _View:
    """The tensors that a file will have, with the values of those that no cut touches."""

    def __init__(self, source: ModelSource, tensors: Mapping[str, TensorInfo]) -> None:
        self.tensors = tensors
        self._source = source

    def dequantized(self, name: str) -> npt.NDArray[np.float32]:
        info = self.tensors[name]
        return dequantize(self._source.raw(name), info.ggml_type, info.shape)


def read_model(
    source: ModelSource, fields: Mapping[str, Field], tensors: Mapping[str, TensorInfo], path: str
) -> tuple[AnyConfig, WeightSource]:
    """
    What a loader will make of a file: its configuration, and the tensors its program reads.

    Args:
        source: for values of tensors that are not in blocks.
        fields, tensors: of the file.

    Raises:
        UnsupportedModelError, ModelFormatError: it will not load.
    """
    values = {key: field.value for key, field in fields.items()}
    view = cast(WeightSource, _View(source, tensors))
    _, config, weights = config_of_gguf(values, view, path)
    return config, weights


def kinds(config: AnyConfig) -> Kinds:
    """What a block's place tells readers of it."""
    layers = range(config.num_layers)
    if isinstance(config, Config):
        return tuple(
            (
                config.windows[i] if config.windows else None,
                config.rope_layers[i] if config.rope_layers else True,
            )
            for i in layers
        )
    # The first block of ModernBERT has no norm.
    is_first_special = config.architecture == "modern-bert"
    return tuple(
        (config.global_layers[i] if config.global_layers else True, is_first_special and i == 0)
        for i in layers
    )


def expected_kinds(
    source: ModelSource, config: AnyConfig, num_layers: int, path: str
) -> Kinds | None:
    """
    The kinds of the blocks of such a model with fewer of them; None where its file says of each
    block what it is, and not as the architecture has it.
    """

    def of(count: int) -> Kinds:
        prefix = config.architecture
        fields = dict(source.fields)
        fields[f"{prefix}.block_count"] = Field.of(count)
        if isinstance(fields.get(prefix + _PATTERN, Field.of(0)).value, np.ndarray):
            del fields[prefix + _PATTERN]
        return kinds(read_model(source, fields, source.tensors, path)[0])

    return of(num_layers) if of(config.num_layers) == kinds(config) else None


def choose_blocks(
    scores: npt.NDArray[np.float64], count: int, found: Kinds, expected: Kinds | None
) -> tuple[int, ...]:
    """
    The blocks of the largest scores in sum whose kinds, in order, are those expected.

    Args:
        scores: [num_layers]; infinite ones come before all others.
        count: how many.
        found: [num_layers], their kinds.
        expected: [count]; None for any.  Where it begins as `found` does, there is a choice.
    """
    is_finite = np.isfinite(scores)
    finite = np.where(is_finite, scores, 0.0)
    values = np.where(is_finite, finite, np.abs(finite).sum() + 1.0)
    num_layers = len(values)
    if expected is None or len({*found, *expected}) == 1:
        order = np.argsort(-values, kind="stable")[:count]
        return tuple(np.sort(order).tolist())
    # best[i, j]: of the first i blocks, j; each is the next or is not there.
    best = np.full((num_layers + 1, count + 1), -np.inf)
    best[:, 0] = 0.0
    for i in range(num_layers):
        for j in range(count):
            taken = best[i, j] + values[i] if found[i] == expected[j] else -np.inf
            best[i + 1, j + 1] = max(best[i, j + 1], taken)
    chosen: list[int] = []
    j = count
    for i in reversed(range(num_layers)):
        if j and best[i + 1, j] > best[i, j]:
            chosen.append(i)
            j -= 1
    return tuple(reversed(chosen))
