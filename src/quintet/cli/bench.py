"""`quintet bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from quintet.cli.options import (
    Backend,
    BackendOption,
    Dtype,
    DtypeOption,
    JsonOption,
    ModelArgument,
    ThreadsOption,
    status,
)

if TYPE_CHECKING:
    from quintet.tools.bench import Report


def bench(
    model: ModelArgument,
    prefill: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 512,
    decode: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 64,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Requests at the same time; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 3,
    threads: ThreadsOption = None,
    backend: BackendOption = Backend.auto,
    dtype: DtypeOption = Dtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast a model reads prompts and writes answers."""
    from rich.console import Console
    from rich.progress import Progress

    from quintet.llm import LLM
    from quintet.tools.bench import Report, measure, num_rounds_in_all
    from quintet.tools.machine import describe_machine

    batch_sizes = batch or [1]
    with status(f"Loading {model}"):
        llm = LLM(model, num_threads=threads, backend=backend.value, dtype=dtype.value)
    with llm, Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Measuring", total=num_rounds_in_all(batch_sizes, rounds))
        measurements = measure(
            llm,
            batch_sizes=batch_sizes,
            num_prefill_tokens=prefill,
            num_decode_tokens=decode,
            num_rounds=rounds,
            on_round=lambda: progress.advance(task),
        )
    report = Report(model, describe_machine(), tuple(measurements))
    if as_json:
        import json

        print(json.dumps(report.as_json(), indent=2))
    else:
        _show(report)


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    machine = report.machine
    console.print(
        f"{report.model} on {machine.cpu}, {machine.num_threads} threads, "
        f"{machine.kernels} kernels, quintet {machine.quintet}",
        soft_wrap=True,
    )
    table = Table("phase", box=None)
    for name in ("requests", "tokens each", "tokens/s", "lowest", "highest"):
        table.add_column(name, justify="right")
    for item in report.measurements:
        table.add_row(
            item.phase,
            str(item.batch_size),
            str(item.num_tokens),
            f"{item.tokens_per_s:.1f}",
            f"{min(item.rounds):.1f}",
            f"{max(item.rounds):.1f}",
        )
    console.print(table)
