"""`quintet prune`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quintet.cli.options import Dtype, DtypeOption, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from quintet.tools.prune import PruneReport


class Strategy(str, Enum):
    """What is cut."""

    depth = "depth"
    width = "width"
    attention = "attention"
    experts = "experts"
    combined = "combined"


class Importance(str, Enum):
    """What tells which parts stay."""

    magnitude = "magnitude"
    l2_norm = "l2_norm"
    activation = "activation"


def prune(
    input: Annotated[
        str,
        typer.Argument(
            metavar="IN", help="A GGUF file, a Hugging Face directory, or a model's name."
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUT", help="The GGUF file to write.")],
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="Cut blocks (depth), feed-forward columns (width), attention heads, experts, or "
            "all of what there is."
        ),
    ] = Strategy.depth,
    layers: Annotated[
        int | None,
        typer.Option(min=1, help="Blocks to keep; three quarters by default."),
    ] = None,
    width_ratio: Annotated[
        float, typer.Option(help="Share of feed-forward columns to keep.")
    ] = 0.75,
    head_ratio: Annotated[
        float, typer.Option(help="Share of KV heads to keep, with their query heads.")
    ] = 0.75,
    expert_ratio: Annotated[float, typer.Option(help="Share of experts to keep.")] = 0.75,
    importance: Annotated[
        Importance, typer.Option(help="What tells which parts stay; activation needs --text.")
    ] = Importance.magnitude,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A text to measure perplexity and activations on.",
        ),
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", min=8, help="Tokens of the text read together.")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option("--chunks", min=1, help="Read no more of the text than this.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be left, write nothing.")
    ] = False,
    dtype: DtypeOption = Dtype.auto,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut a model smaller: whole blocks, feed-forward columns, attention heads, experts."""
    from quintet.cli.measure import print_json, read_text
    from quintet.cli.quantize import progress_bar
    from quintet.hub.resolve import resolve
    from quintet.tools.prune import prune as prune_model

    with progress_bar("pruning") as progress:
        report = prune_model(
            resolve(input),
            output,
            strategy=strategy.value,
            target_n_layer=layers,
            width_ratio=width_ratio,
            head_ratio=head_ratio,
            expert_ratio=expert_ratio,
            importance=importance.value,
            text=None if text is None else read_text(text),
            context=context,
            max_chunks=chunks,
            dtype=dtype.value,
            num_threads=threads,
            progress=progress,
            dry_run=dry_run,
        )
    if as_json:
        print_json(report)
    else:
        show_report(report, is_written=not dry_run)


def show_report(report: PruneReport, *, is_written: bool) -> None:
    """A table of sizes before and after, and what went."""
    from quintet.cli.tables import print_table, size

    before, after = report.before, report.after
    rows = [
        ("blocks", str(before.num_layers), str(after.num_layers)),
        ("feed-forward columns", str(before.feed_forward), str(after.feed_forward)),
        ("query heads", str(before.num_heads), str(after.num_heads)),
        ("KV heads", str(before.num_kv_heads), str(after.num_kv_heads)),
        ("experts", str(before.num_experts), str(after.num_experts)),
        ("columns of an expert", str(before.expert_feed_forward), str(after.expert_feed_forward)),
        (
            "columns of shared experts",
            str(before.shared_feed_forward),
            str(after.shared_feed_forward),
        ),
        ("parameters", f"{report.num_parameters_before:,}", f"{report.num_parameters_after:,}"),
        ("file", size(report.source_bytes), size(report.file_bytes)),
    ]
    rows = [row for row in rows if row[1] != "0"]  # what the model does not have
    if report.perplexity_before is not None and report.perplexity_after is not None:
        was, now = report.perplexity_before, report.perplexity_after
        rows.append(
            (
                "perplexity",
                f"{was.value:.4f} +- {was.error:.4f}",
                f"{now.value:.4f} +- {now.error:.4f}",
            )
        )
    print_table(("", "before", "after"), rows)
    if report.removed_layers:
        print(f"removed blocks: {', '.join(map(str, report.removed_layers))}")
    changes: dict[tuple[str, str], int] = {}
    for each in report.reencoded:
        key = (each.before, each.after)
        changes[key] = changes.get(key, 0) + 1
    for (kind, other), count in changes.items():
        print(f"encoded again: {count} matrices of {kind}{'' if kind == other else f' to {other}'}")
    if report.llama_cpp_refuses:
        print(f"llama.cpp will not open it: {report.llama_cpp_refuses}")
    took = f"in {report.seconds:.1f} s" if is_written else "not written"
    print(f"{report.path}: {report.strategy} by {report.importance}, {took}")
