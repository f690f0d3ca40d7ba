"""What another process that keeps one core busy costs: decode tokens per second with and without.

    python benchmarks/busy_core.py MODEL.gguf [--rounds 7] [--core N] [--threads N] [--json FILE]

Rounds alternate: undisturbed, then beside a process that does nothing but loop, pinned to one core.
Of n cores with one thread each, the fair share is (n - 1/2) / n: that process has a right to half
of its core.  Run it on an otherwise idle machine, or both figures measure the company.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers.quintet_worker import QuintetEngine
from rich.console import Console
from rich.table import Table

from quintet._native import default_num_threads

NUM_TOKENS = 64
SETTLE_S = 0.3  # until the scheduler has seen the other process
LOOP = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@contextmanager
def _busy(core: int) -> Iterator[None]:
    """A process that never stops computing, on one core."""
    process = subprocess.Popen([sys.executable, "-c", LOOP, str(core)])
    try:
        time.sleep(SETTLE_S)
        if process.poll() is not None:
            raise RuntimeError(f"the busy process ended with status {process.returncode}")
        yield
    finally:
        process.kill()
        process.wait()


def _tokens_per_s(engine: QuintetEngine) -> float:
    return NUM_TOKENS / engine.decode(0, NUM_TOKENS)["seconds"]


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--core", type=int, default=cores[-1], help="the busy one")
    parser.add_argument("--threads", type=int, default=default_num_threads())
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if options.core not in cores:
        parser.error(f"expected a core of {cores}, found {options.core}")
    if options.rounds < 1 or options.threads < 1:
        parser.error("expected at least one round and one thread")

    engine = QuintetEngine()
    engine.load(
        str(options.model), options.threads, context=NUM_TOKENS, num_streams=0, stream_len=0
    )
    _tokens_per_s(engine)
    alone, beside = [], []
    for _ in range(options.rounds):
        alone.append(_tokens_per_s(engine))
        with _busy(options.core):
            beside.append(_tokens_per_s(engine))

    ratio = statistics.median(beside) / statistics.median(alone)
    fair = max(options.threads - 0.5, 0.5) / options.threads
    table = Table(title=f"decode, tokens/s, {options.threads} threads on {len(cores)} cores")
    for name in ("", "median", "lowest", "highest"):
        table.add_column(name, justify="right" if name else "left")
    for name, figures in (("undisturbed", alone), (f"core {options.core} busy", beside)):
        low, high = min(figures), max(figures)
        table.add_row(name, f"{statistics.median(figures):.1f}", f"{low:.1f}", f"{high:.1f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"ratio of medians {ratio:.2f}, fair share {fair:.2f}")
    if options.json is not None:
        figures = {
            "model": options.model.name,
            "threads": options.threads,
            "cores": len(cores),
            "undisturbed_tokens_per_s": alone,
            "busy_core_tokens_per_s": beside,
            "ratio": ratio,
            "fair_share": fair,
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
