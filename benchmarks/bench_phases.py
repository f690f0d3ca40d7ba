"""Where a step's time goes, phase by phase.

    python benchmarks/bench_phases.py MODEL.gguf [--cells decode-0,streams-8] [--threads 1]

Times are those of the calling thread.  `work` is its own share of a phase, `wait` the barrier
behind it: what the other threads needed longer, and the barrier itself.  `cpu` is the part of
`work` for which it had a processor: on a busy machine read that, with `--threads 1`.  Rates count
a phase's weights as they lie packed, and a multiply-accumulate per weight and row; they are per
second of work and wait, with one thread per second of `cpu`.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from peers.cells import CELLS, NUM_NEW_TOKENS, STREAM_PROMPT, Cell
from peers.protocol import UBATCH
from peers.quintet_worker import QuintetEngine
from rich.console import Console
from rich.table import Table

from quintet._native import default_num_threads

KINDS = ("prefill", "decode", "streams")
DEFAULT = ("prefill-512", "decode-0", "decode-1024", "streams-8", "streams-16")


@dataclass
class Phase:
    """Phases of one kind together: all layers, all steps."""

    label: str
    calls: int = 0
    work_s: float = 0.0
    wait_s: float = 0.0
    cpu_s: float = 0.0
    weight_bytes: int = 0
    macs_per_row: int = 0


def profile(engine: QuintetEngine, cell: Cell) -> list[Phase]:
    """Run a cell twice, the first time to warm up and fill the cache; the phases of the second."""
    _run(engine, cell)
    engine.plan.start_profile()
    _run(engine, cell)
    engine.plan.stop_profile()
    phases: dict[str, Phase] = {}
    for label, calls, work_s, wait_s, cpu_s, weight_bytes, num_weights in engine.plan.profile():
        phase = phases.setdefault(label, Phase(label))
        phase.calls += calls
        phase.work_s += work_s
        phase.wait_s += wait_s
        phase.cpu_s += cpu_s
        phase.weight_bytes += calls * weight_bytes
        phase.macs_per_row += calls * num_weights
    return list(phases.values())


def _run(engine: QuintetEngine, cell: Cell) -> None:
    if cell.kind == "prefill":
        engine.prefill(cell.size)
    elif cell.kind == "decode":
        engine.decode(cell.size, NUM_NEW_TOKENS)
    else:
        engine.streams(cell.size, STREAM_PROMPT, NUM_NEW_TOKENS)


def _table(cell: Cell, phases: list[Phase], head_prefix: str, num_threads: int) -> Table:
    num_steps = math.ceil(cell.size / UBATCH) if cell.kind == "prefill" else NUM_NEW_TOKENS
    rows = {"prefill": min(cell.size, UBATCH), "decode": 1, "streams": cell.size}[cell.kind]
    total_s = sum(phase.work_s + phase.wait_s for phase in phases)
    table = Table(title=f"{cell.name}: {total_s / num_steps * 1e3:.2f} ms a step", box=None)
    table.add_column("phase", overflow="fold")
    for name in ("calls", "work ms", "wait ms", "cpu ms", "share", "GB/s", "GMAC/s"):
        table.add_column(name, justify="right")
    for phase in sorted(phases, key=lambda phase: -phase.work_s - phase.wait_s):
        seconds = phase.cpu_s if num_threads == 1 else phase.work_s + phase.wait_s
        is_head = phase.label.startswith(head_prefix)
        phase_rows = 1 / num_steps if is_head and cell.kind == "prefill" else rows
        times_s = (phase.work_s, phase.wait_s, phase.cpu_s)
        table.add_row(
            phase.label,
            f"{phase.calls / num_steps:g}",
            *(f"{one_s / num_steps * 1e3:.3f}" for one_s in times_s),
            f"{(phase.work_s + phase.wait_s) / total_s:.1%}",
            f"{phase.weight_bytes / seconds / 1e9:.1f}" if phase.weight_bytes else "",
            f"{phase.macs_per_row * phase_rows / seconds / 1e9:.0f}" if phase.weight_bytes else "",
        )
    return table


def main() -> None:
    names = {cell.name: cell for cell in CELLS if cell.kind in KINDS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--cells", default=",".join(DEFAULT), help=", ".join(names))
    parser.add_argument("--threads", type=int, default=default_num_threads())
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    unknown = set(options.cells.split(",")) - set(names)
    if unknown:
        parser.error(f"expected some of {', '.join(names)}, found {', '.join(sorted(unknown))}")
    chosen = [names[name] for name in options.cells.split(",")]

    engine = QuintetEngine()
    engine.load(
        str(options.model),
        options.threads,
        context=max(cell.context for cell in chosen),
        num_streams=max((cell.size for cell in chosen if cell.kind == "streams"), default=0),
        stream_len=STREAM_PROMPT + NUM_NEW_TOKENS,
    )
    console = Console(highlight=False, markup=False)
    report = {}
    for cell in chosen:
        phases = profile(engine, cell)
        report[cell.name] = [asdict(phase) for phase in phases]
        head = f"linear, n x k (bits): {engine.vocab_size}x"
        console.print(_table(cell, phases, head, options.threads))
        console.print()
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
