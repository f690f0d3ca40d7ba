"""`quintet quantize`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from quintet.cli.options import ThreadsOption

if TYPE_CHECKING:
    from quintet.tools.progress import Progress
    from quintet.tools.quantize import QuantizeResult


def quantize(
    input: Annotated[
        str,
        typer.Argument(
            metavar="IN", help="A GGUF file, a Hugging Face directory, or a model's name."
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUT", help="The GGUF file to write.")],
    type: Annotated[
        str, typer.Argument(metavar="TYPE", help="E.g. Q4_K_M; a wrong one lists them all.")
    ],
    imatrix: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Importance matrix: see `quintet imatrix`."),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=TYPE",
            help="Another format for tensors whose name the regular expression finds; repeatable.",
        ),
    ] = None,
    pure: Annotated[
        bool, typer.Option("--pure", help="One format for all matrices, no mixed recipe.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show tensors and sizes, write nothing.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Write a model in fewer bits."""
    from quintet.hub.resolve import resolve
    from quintet.tools.quantize import quantize as quantize_model

    with progress_bar("quantising") as progress:
        result = quantize_model(
            resolve(input),
            output,
            type,
            imatrix=imatrix,
            overrides=overrides_of(tensor_type or []),
            pure=pure,
            num_threads=threads,
            dry_run=dry_run,
            progress=progress,
        )
    if dry_run:
        show_tensors(result)
    show_result(result, is_written=not dry_run)


def overrides_of(options: list[str]) -> dict[str, str]:
    """`PATTERN=TYPE`s by pattern; the type is behind the last equals sign."""
    from quintet.errors import RequestError

    overrides = {}
    for option in options:
        pattern, equals, name = option.rpartition("=")
        if not equals or not pattern or not name:
            raise RequestError(f"expected PATTERN=TYPE, found {option!r}", parameter="tensor-type")
        overrides[pattern] = name
    return overrides


@contextmanager
def progress_bar(verb: str) -> Iterator[Callable[[Progress], None]]:
    """What `quantize` calls; a bar on stderr where that is a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True, highlight=False), transient=True) as bars:
        task = bars.add_task(verb, total=1.0)

        def show(progress: Progress) -> None:
            text = f"{verb} {progress.num_tensors_done}/{progress.num_tensors} {progress.tensor}"
            bars.update(task, completed=progress.fraction, description=text)

        yield show


def show_tensors(result: QuantizeResult) -> None:
    """A line per tensor: what it is and what it becomes."""
    from quintet.cli.tables import print_table, size

    rows = []
    for plan in result.tensors:
        shape = " x ".join(map(str, plan.source.shape))
        rows.append(
            (
                plan.source.name,
                shape,
                plan.source.ggml_type.name,
                plan.target.ggml_type.name,
                size(plan.source.num_bytes),
                size(plan.target.num_bytes),
            )
        )
    print_table(("tensor", "shape", "from", "to", "bytes before", "after"), rows)


def show_result(result: QuantizeResult, *, is_written: bool) -> None:
    """One line of what was, or would be, written."""
    import sys

    from quintet.cli.tables import size

    took = f" in {result.seconds:.1f} s" if is_written else ", not written"
    print(
        f"{result.path}: {result.type}, {size(result.source_bytes)} -> {size(result.file_bytes)}, "
        f"{result.bits_per_weight:.2f} bits per weight{took}"
    )
    if result.without_importance:
        print(
            f"{len(result.without_importance)} tensors are not in the importance matrix: "
            f"{', '.join(result.without_importance[:4])}"
            f"{', ...' if len(result.without_importance) > 4 else ''}",
            file=sys.stderr,
        )
