"""`quintet pull`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quintet.hub.pull import PullProgress


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A short name such as qwen3:0.6b, or hf.co/user/repo[:QUANT]."
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also a model that this machine's memory cannot hold.")
    ] = False,
) -> None:
    """Download a model."""
    from quintet.hub.pull import pull as pull_model

    steps = pull_model(name, is_forced=force)
    if sys.stderr.isatty():
        _show_bars(steps)
    else:
        _print_steps(steps)


def _print_steps(steps: Iterable[PullProgress]) -> None:
    """One line per step, for logs."""
    last = ""
    for step in steps:
        if step.status != last:
            last = step.status
            size = f" ({step.total:,} bytes)" if step.total is not None else ""
            print(f"{step.status}{size}", file=sys.stderr)


def _show_bars(steps: Iterable[PullProgress]) -> None:
    """A bar per file, with speed and time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, int] = {}
        last = ""
        for step in steps:
            if step.total is None:
                if step.status != last:
                    console.print(step.status)
            elif step.status in tasks:
                bars.update(bars.task_ids[tasks[step.status]], completed=step.completed or 0)
            else:
                # What is there already is no speed.
                tasks[step.status] = len(tasks)
                bars.add_task(step.status, total=step.total, completed=step.completed or 0)
            last = step.status
