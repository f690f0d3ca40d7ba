"""`quintet doctor`."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Show what Quintet finds on this machine, and measure its memory."""
    from rich.console import Console
    from rich.table import Table

    from quintet.cli.options import status
    from quintet.tools.doctor import diagnose

    with status("Measuring the memory"):
        diagnosis = diagnose()
    machine = diagnosis.machine
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("quintet", f"{machine.quintet}, Python {machine.python}, {machine.system}"),
        ("CPU", machine.cpu),
        ("CPU features", " ".join(machine.features) or "none that the kernels use"),
        ("processors", f"{machine.num_usable_cpus} of {machine.num_logical_cpus} usable"),
        ("threads", str(machine.num_threads)),
        ("memory", f"{machine.memory_bytes / 2**30:.1f} GiB"),
        ("kernels", f"{machine.kernels} (available: {', '.join(machine.available_kernels)})"),
        ("read bandwidth", f"{diagnosis.read_bandwidth / 1e9:.1f} GB/s"),
    ):
        table.add_row(name, value)
    console = Console(highlight=False, markup=False)
    console.print(table)
    for problem in diagnosis.problems:
        console.print(f"problem: {problem}")
    if diagnosis.problems:
        raise typer.Exit(1)
