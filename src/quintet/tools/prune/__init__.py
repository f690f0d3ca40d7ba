"""Cuts a model smaller: whole blocks, feed-forward columns, groups of attention heads, experts.

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
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, get_args

from quintet import ops
from quintet.errors import RequestError, UnsupportedModelError
from quintet.formats.gguf_writer import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    Field,
    GGUFWriter,
    file_size,
)
from quintet.formats.model_file import open_model_file
from quintet.models import AnyConfig, Config, load_model
from quintet.tools.model_source import ModelSource
from quintet.tools.output_file import check_disk, refuse_same_file
from quintet.tools.perplexity import perplexity
from quintet.tools.progress import Progress
from quintet.tools.prune.activations import score_activations
from quintet.tools.prune.anatomy import Anatomy, Sizes, read_anatomy
from quintet.tools.prune.blocks import choose_blocks, expected_kinds, kinds, read_model
from quintet.tools.prune.cut import Choice, Cut, cut_data, with_scaled_queries
from quintet.tools.prune.fields import check_result, cut_fields, llama_cpp_refuses
from quintet.tools.prune.report import PruneReport, Reencoded
from quintet.tools.prune.scores import Importance, Scores, score_weights
from quintet.tools.prune.sizes import Experts, Request, Strategy, target_sizes
from quintet.tools.quantize import open_source
from quintet.tools.text_pass import DEFAULT_CONTEXT, Dtype

__all__ = [
    "DECODERS",
    "ENCODERS",
    "Importance",
    "PruneReport",
    "Reencoded",
    "Strategy",
    "prune",
]

DECODERS = (
    *("deepseek2", "gemma2", "gemma3", "glm4", "gpt-oss", "granite", "llama", "mistral3", "olmo2"),
    *("phi3", "qwen2", "qwen3", "qwen3moe", "smollm3"),
)
ENCODERS = ("bert", "modern-bert", "nomic-bert")


class _Reading(TypedDict):
    """How a text is read: see `TextPass`."""

    context: int
    max_chunks: int | None
    dtype: Dtype
    num_threads: int | None


def prune(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    strategy: Strategy = "depth",
    target_n_layer: int | None = None,
    width_ratio: float = 0.75,
    head_ratio: float = 0.75,
    expert_ratio: float = 0.75,
    importance: Importance = "magnitude",
    text: str | None = None,
    context: int | None = None,
    max_chunks: int | None = None,
    dtype: Dtype = "auto",
    num_threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """
    Cut a model smaller.

    Args:
        input: a GGUF file (a shard stands for all) or a Hugging Face directory of an architecture
            of `DECODERS` or `ENCODERS`.
        output: the GGUF file to write; replaced if it is there.
        strategy: "depth" drops blocks, "width" feed-forward columns (of experts, of each as many),
            "attention" KV heads with their query heads, "experts" whole experts, "combined" all of
            what there is.
        target_n_layer: blocks to keep; None: three quarters, rounded up.
        width_ratio: share of feed-forward columns to keep, 0 to 1; the number is rounded to whole
            blocks of weights where that changes it little.
        head_ratio: share of KV heads to keep, 0 to 1; rounded down, at least one.
        expert_ratio: share of experts to keep, 0 to 1; rounded down, at least as many as a token
            uses.
        importance: what tells which to keep: see `scores` and `activations` beside this.
        text: to measure activations and perplexities on.
        context, max_chunks: tokens of a chunk of the text (None: 512, or the model's context where
            that is shorter), and how many chunks to read.
        dtype: what the text is read with: see `TextPass`.
        num_threads: None: one per physical core.
        progress: called before and after every tensor.
        dry_run: only say what would be written.

    Raises:
        ModelNotFoundError: no such input.
        ModelFormatError: the input breaks its format, or a weight to encode is not finite.
        UnsupportedModelError: another architecture, an input that cannot be read, or a cut that its
            file could not tell readers of.
        RequestError: a value out of range, nothing to remove, activations without a text, a text
            that is too short, or an output that is the input.
        CapacityError: the disk has too little room.
        OSError: the output cannot be written.
    """
    start = time.perf_counter()
    _check(strategy, importance, text)
    request = Request(strategy, target_n_layer, width_ratio, head_ratio, expert_ratio)
    path, output = Path(input), Path(output)
    with open_source(path) as source:
        refuse_same_file(source, output)
        program = _read_program(path)
        config = read_model(source, source.fields, source.tensors, str(path))[0]
        anatomy = read_anatomy(config, source.tensors, str(path))
        before = anatomy.sizes
        after = target_sizes(anatomy, _experts(config), request)
        context = min(DEFAULT_CONTEXT, config.context_length) if context is None else context
        reading: _Reading = {
            "context": context,
            "max_chunks": max_chunks,
            "dtype": dtype,
            "num_threads": num_threads,
        }
        if importance == "activation" and text is not None:
            scores = score_activations(path, source, program, anatomy, text, **reading)
        else:
            scores = score_weights(source, anatomy, 1 if importance == "magnitude" else 2)
        layers, cuts, fields = _plan(source, config, anatomy, scores, after, str(path))
        targets = [cut.target for cut in cuts]
        refusal = llama_cpp_refuses(config, source.tensors, after)
        alignment = DEFAULT_ALIGNMENT
        if ALIGNMENT_KEY in fields:
            alignment = int(fields[ALIGNMENT_KEY].value)
        num_bytes = file_size(fields, targets, alignment)
        first = second = None
        if not dry_run:
            check_disk(output, num_bytes)
            if text is not None:
                first = perplexity(path, text, **reading)
            with GGUFWriter(output, fields, targets) as writer:
                _write(source, cuts, writer, num_threads, progress)
        source_bytes = sum(each.stat().st_size for each in source.paths)
        num_parameters = sum(math.prod(info.shape) for info in source.tensors.values())
    if text is not None and not dry_run:
        second = perplexity(output, text, **reading)
    return PruneReport(
        path=output,
        strategy=strategy,
        importance=importance,
        before=before,
        after=after,
        removed_layers=tuple(sorted(set(range(before.num_layers)) - set(layers))),
        num_parameters_before=num_parameters,
        num_parameters_after=sum(math.prod(info.shape) for info in targets),
        source_bytes=source_bytes,
        file_bytes=num_bytes,
        reencoded=tuple(
            Reencoded(cut.target.name, cut.source.ggml_type.name, cut.target.ggml_type.name)
            for cut in cuts
            if not cut.keeps_blocks
        ),
        llama_cpp_refuses=refusal,
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


def _read_program(path: Path) -> ops.Program:
    """The model's ops; refuses architectures that cutting might break."""
    with open_model_file(path) as opened:
        model = load_model(opened)
    architecture = model.config.architecture
    if architecture not in DECODERS + ENCODERS:
        raise UnsupportedModelError("architecture to prune", architecture, DECODERS + ENCODERS)
    return model.program


def _experts(config: AnyConfig) -> Experts:
    if not isinstance(config, Config):
        return Experts()
    return Experts(config.num_experts_used, config.num_expert_groups, config.num_expert_groups_used)


def _plan(
    source: ModelSource,
    config: AnyConfig,
    anatomy: Anatomy,
    scores: Scores,
    after: Sizes,
    path: str,
) -> tuple[tuple[int, ...], list[Cut], dict[str, Field]]:
    """The blocks that stay, what becomes of each tensor, and the metadata; checked."""
    layers = tuple(range(config.num_layers))
    if after.num_layers < config.num_layers:
        expected = expected_kinds(source, config, after.num_layers, path)
        layers = choose_blocks(scores.blocks, after.num_layers, kinds(config), expected)
    choice = Choice(anatomy, after, scores, layers, _experts(config).num_groups)
    cuts = [cut for info in source.tensors.values() if (cut := choice.cut(info))]
    fields = cut_fields(source.fields, anatomy, after, layers)
    infos = {cut.target.name: cut.target for cut in cuts}
    factor = check_result(source, config, fields, infos, layers, path)
    if factor != 1:
        cuts = with_scaled_queries(cuts, factor)
    return layers, cuts, fields


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
