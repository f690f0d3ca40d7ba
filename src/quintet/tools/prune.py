"""Cuts a model smaller: whole blocks, feed-forward columns, groups of attention heads.

What is left is the model's own weights.  Rows that go leave the others' blocks of weights as they
are; columns too, where whole blocks go.  Other matrices that lose columns are encoded again, in
their own format where we can write it and the new width allows it.  The output is complete or not
there.

Cutting costs quality; a pruned model is meant to be trained on, or to be compared.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from quintet.errors import ModelFormatError, RequestError, UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_writer import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    Field,
    GGUFWriter,
    file_size,
)
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import Config, load_model
from quintet.tools.model_source import ModelSource
from quintet.tools.output_file import check_disk, refuse_same_file
from quintet.tools.perplexity import Perplexity, perplexity
from quintet.tools.progress import Progress
from quintet.tools.prune_cut import BLOCK_NAME, KNOWN_KINDS, Choice, Cut, cut_data
from quintet.tools.prune_scores import (
    Importance,
    Sizes,
    score_activations,
    score_weights,
)
from quintet.tools.quantize import open_source
from quintet.tools.text_pass import DEFAULT_CONTEXT

Strategy: TypeAlias = Literal["depth", "width", "attention", "combined"]

ARCHITECTURES = ("llama", "qwen2", "qwen3")
# What they count is no longer so.
_STALE_KEYS = ("general.parameter_count", "general.size_label")


@dataclass(frozen=True, slots=True)
class Reencoded:
    """A matrix whose values were rounded anew; `before` and `after` are its number formats."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PruneReport:
    """
    What was written, or would be.

    Args:
        path: the output.
        strategy, importance: as asked for.
        before, after: sizes of the model.
        removed_layers: blocks that went, by their old number.
        num_parameters_before, num_parameters_after: weights of all tensors.
        source_bytes, file_bytes: sizes of the input's and of the output's files.
        reencoded: matrices that lost columns within blocks of weights.
        perplexity_before, perplexity_after: on the text; None without one or in a dry run.
        seconds: the work took.
    """

    path: Path
    strategy: Strategy
    importance: Importance
    before: Sizes
    after: Sizes
    removed_layers: tuple[int, ...]
    num_parameters_before: int
    num_parameters_after: int
    source_bytes: int
    file_bytes: int
    reencoded: tuple[Reencoded, ...]
    perplexity_before: Perplexity | None
    perplexity_after: Perplexity | None
    seconds: float


def prune(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    strategy: Strategy = "depth",
    target_n_layer: int | None = None,
    width_ratio: float = 0.75,
    head_ratio: float = 0.75,
    importance: Importance = "magnitude",
    text: str | None = None,
    context: int | None = None,
    max_chunks: int | None = None,
    num_threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """
    Cut a model smaller.

    Args:
        input: a GGUF file (a shard stands for all) or a Hugging Face directory of an architecture
            of `ARCHITECTURES`.
        output: the GGUF file to write; replaced if it is there.
        strategy: "depth" drops blocks, "width" feed-forward columns, "attention" KV heads with
            their query heads, "combined" all three.
        target_n_layer: blocks to keep; None: three quarters, rounded up.
        width_ratio: share of feed-forward columns to keep, 0 to 1; the number is rounded to whole
            blocks of weights where that changes it little.
        head_ratio: share of KV heads to keep, 0 to 1; rounded down, at least one.
        importance: what tells which to keep: see `prune_scores`.
        text: to measure activations and perplexities on.
        context, max_chunks: tokens of a chunk of the text (None: 512, or the model's context where
            that is shorter), and how many chunks to read.
        num_threads: None: one per physical core.
        progress: called before and after every tensor.
        dry_run: only say what would be written.

    Raises:
        ModelNotFoundError: no such input.
        ModelFormatError: the input breaks its format, or a weight to encode is not finite.
        UnsupportedModelError: another architecture, or an input that cannot be read.
        RequestError: a value out of range, nothing to remove, activations without a text, a text
            that is too short, or an output that is the input.
        CapacityError: the disk has too little room.
        OSError: the output cannot be written.
    """
    start = time.perf_counter()
    _check(strategy, importance, text)
    path, output = Path(input), Path(output)
    with open_source(path) as source:
        refuse_same_file(source, output)
        before, context_length = _read_sizes(path, source)
        after = _target(before, strategy, target_n_layer, width_ratio, head_ratio)
        context = min(DEFAULT_CONTEXT, context_length) if context is None else context
        if text is not None and importance == "activation":
            scores = score_activations(
                path, source, before, text, context=context, max_chunks=max_chunks
            )
        else:
            scores = score_weights(source, before, 1 if importance == "magnitude" else 2)
        choice = Choice(before, after, scores)
        cuts = [cut for name in source.tensors if (cut := choice.cut(source.tensors[name]))]
        targets = [cut.target for cut in cuts]
        fields = _fields(source.fields, before, after, choice.layers)
        alignment = DEFAULT_ALIGNMENT
        if ALIGNMENT_KEY in fields:
            alignment = int(fields[ALIGNMENT_KEY].value)
        num_bytes = file_size(fields, targets, alignment)
        first = second = None
        if not dry_run:
            check_disk(output, num_bytes)
            if text is not None:
                first = perplexity(
                    path, text, context=context, max_chunks=max_chunks, num_threads=num_threads
                )
            with GGUFWriter(output, fields, targets) as writer:
                _write(source, cuts, writer, num_threads, progress)
        source_bytes = sum(each.stat().st_size for each in source.paths)
        num_parameters = sum(math.prod(info.shape) for info in source.tensors.values())
    if text is not None and not dry_run:
        second = perplexity(
            output, text, context=context, max_chunks=max_chunks, num_threads=num_threads
        )
    return PruneReport(
        path=output,
        strategy=strategy,
        importance=importance,
        before=before,
        after=after,
        removed_layers=tuple(sorted(set(range(before.num_layers)) - set(choice.layers))),
        num_parameters_before=num_parameters,
        num_parameters_after=sum(math.prod(info.shape) for info in targets),
        source_bytes=source_bytes,
        file_bytes=num_bytes,
        reencoded=tuple(
            Reencoded(cut.target.name, cut.source.ggml_type.name, cut.target.ggml_type.name)
            for cut in cuts
            if not cut.keeps_blocks
        ),
        perplexity_before=first,
        perplexity_after=second,
        seconds=time.perf_counter() - start,
    )


def _check(strategy: str, importance: str, text: str | None) -> None:
    for parameter, value, choices in (
        ("strategy", strategy, get_args(Strategy)),
        ("importance", importance, get_args(Importance)),
    ):
        if value not in choices:
            raise RequestError(
                f"expected one of {', '.join(choices)}, found {value!r}", parameter=parameter
            )
    if importance == "activation" and text is None:
        raise RequestError("activations are measured on a text: none was given", parameter="text")


def _read_sizes(path: Path, source: ModelSource) -> tuple[Sizes, int]:
    """The model's sizes and its context; refuses what cutting might break."""
    is_safetensors = path.is_dir() or path.suffix == ".safetensors"
    with SafetensorsDir.open(path) if is_safetensors else GGUFFile.open(path) as opened:
        config = load_model(opened).config
    if not isinstance(config, Config) or config.architecture not in ARCHITECTURES:
        raise UnsupportedModelError("architecture to prune", config.architecture, ARCHITECTURES)
    widths = set()
    for name, info in source.tensors.items():
        match = BLOCK_NAME.fullmatch(name)
        if match is None:
            continue
        if match.group(2).rpartition(".")[0] not in KNOWN_KINDS:
            raise UnsupportedModelError("tensor to prune", name)
        if match.group(2) == "ffn_down.weight":
            widths.add(info.shape[-1])
    if len(widths) != 1:
        raise ModelFormatError(
            f"expected feed-forwards of one width, found {sorted(widths)}", path=str(path)
        )
    sizes = Sizes(
        config.num_layers, widths.pop(), config.num_heads, config.num_kv_heads, config.head_dim
    )
    return sizes, config.context_length


def _target(
    before: Sizes,
    strategy: Strategy,
    target_n_layer: int | None,
    width_ratio: float,
    head_ratio: float,
) -> Sizes:
    """What will be left."""
    for parameter, ratio in (("width_ratio", width_ratio), ("head_ratio", head_ratio)):
        if not 0 < ratio <= 1:
            raise RequestError(
                f"expected above 0 and at most 1, found {ratio}", parameter=parameter
            )
    num_layers, feed_forward = before.num_layers, before.feed_forward
    num_kv_heads = before.num_kv_heads
    if strategy in ("depth", "combined"):
        if target_n_layer is None:
            target_n_layer = -(-3 * num_layers // 4)
        if not 1 <= target_n_layer <= num_layers:
            raise RequestError(
                f"expected 1 to {num_layers}, the model's blocks, found {target_n_layer}",
                parameter="target_n_layer",
            )
        num_layers = target_n_layer
    if strategy in ("width", "combined"):
        feed_forward = _width(before.feed_forward, width_ratio)
    if strategy in ("attention", "combined"):
        num_kv_heads = max(1, math.floor(head_ratio * num_kv_heads + 1e-9))
    after = Sizes(
        num_layers,
        feed_forward,
        before.num_heads // before.num_kv_heads * num_kv_heads,
        num_kv_heads,
        before.head_dim,
    )
    if after == before:
        names = {"depth": "target_n_layer", "width": "width_ratio", "attention": "head_ratio"}
        raise RequestError(
            f"nothing would be removed of {before.num_layers} blocks, {before.feed_forward} "
            f"feed-forward columns and {before.num_kv_heads} KV heads",
            parameter=names.get(strategy, "strategy"),
        )
    return after


def _width(before: int, ratio: float) -> int:
    """Columns to keep: whole blocks of weights where these are small against all of them."""
    step = next(
        step for step in (256, 32, 1) if (before % step == 0 and before >= 8 * step) or step == 1
    )
    return min(before, max(step, round(ratio * before / step) * step))


def _fields(
    fields: Mapping[str, Field], before: Sizes, after: Sizes, layers: tuple[int, ...]
) -> dict[str, Field]:
    """The output's metadata: the input's with the new sizes."""
    prefix = f"{fields['general.architecture'].value}."
    result = {key: field for key, field in fields.items() if key not in _STALE_KEYS}
    if len(layers) < before.num_layers:
        for key, field in fields.items():
            value = field.value
            if (
                key.startswith(prefix)
                and isinstance(value, np.ndarray)
                and len(value) == before.num_layers
            ):
                result[key] = Field(field.type, value[list(layers)])
    for key, number in (
        ("block_count", after.num_layers),
        ("feed_forward_length", after.feed_forward),
        ("attention.head_count", after.num_heads),
        ("attention.head_count_kv", after.num_kv_heads),
        # Else they would be worked out from the number of heads.
        ("attention.key_length", after.head_dim),
        ("attention.value_length", after.head_dim),
    ):
        result[prefix + key] = Field.of(number)
    return result


def _write(
    source: ModelSource,
    cuts: list[Cut],
    writer: GGUFWriter,
    num_threads: int | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    num_weights = sum(math.prod(cut.target.shape) for cut in cuts)
    weights_done = 0
    for done, cut in enumerate(cuts):
        name = cut.target.name
        if progress is not None:
            progress(Progress(name, done, len(cuts), weights_done, num_weights))
        for data in cut_data(source, cut, num_threads):
            writer.write(name, data)
        weights_done += math.prod(cut.target.shape)
        if progress is not None:
            progress(Progress(name, done + 1, len(cuts), weights_done, num_weights))
