"""Both engines on one model file, alternately, cell by cell."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peers.cells import API_PROMPT, NUM_NEW_TOKENS, STREAM_PROMPT, Cell, ModelCost
from peers.client import Worker, WorkerError

ENGINES = ("quintet", "llama.cpp")
MODULES = {"quintet": "peers.quintet_worker", "llama.cpp": "peers.llama_cpp_worker"}

# More than this of a core used by others, or by the engine whose turn it is not, and a figure is
# marked: /proc/stat counts in hundredths of a second.
DISTURBED_CORES = 0.1
TICKS_S = 0.03  # what that counting may be off by

# Of the two engines' logits behind one token; int8 activations leave about 0.999.
MIN_CORRELATION = 0.98


@dataclass(frozen=True)
class Setup:
    """How the engines are started.

    Args:
        pythons: the interpreter of each engine's environment.
        environment: variables for both.
        log: where their stderr goes.
        num_threads: for both.
        num_rounds: that count; one more goes before, to warm up.
    """

    pythons: Mapping[str, Path]
    environment: Mapping[str, str]
    log: Path
    num_threads: int
    num_rounds: int

    def worker(self, engine: str) -> Worker:
        """A new process of an engine."""
        return Worker(self.pythons[engine], MODULES[engine], self.environment, self.log)

    @contextmanager
    def workers(self) -> Iterator[dict[str, Worker]]:
        """A process of each engine."""
        with self.worker(ENGINES[0]) as first, self.worker(ENGINES[1]) as second:
            yield dict(zip(ENGINES, (first, second), strict=True))


@dataclass(frozen=True)
class Engines:
    """What the engines said of themselves at loading."""

    versions: dict[str, str]
    kernels: dict[str, str]


def measure_model(
    setup: Setup, path: Path, cost: ModelCost, cells: Sequence[Cell]
) -> tuple[list[dict[str, Any]], Engines | None]:
    """All cells of one model file, as the JSON report has them."""
    results: list[dict[str, Any]] = []
    engines = None
    with setup.worker("quintet") as machine:

        def probe() -> dict[str, float]:
            return machine.request("machine", num_threads=setup.num_threads)

        startup = [cell for cell in cells if cell.kind in ("load", "memory")]
        if startup:
            rounds = list(_alternate(setup, lambda e: _measure_startup(setup, e, path), probe, {}))
            results += [_summary(cell, _pick(rounds, cell), cost) for cell in startup]
        steps = [cell for cell in cells if cell.kind in ("prefill", "decode", "streams")]
        if steps:
            with setup.workers() as workers:
                loaded = _load(setup, workers, path, steps)
                engines = Engines(
                    {name: info["version"] for name, info in loaded.items()},
                    {name: info["kernels"] for name, info in loaded.items()},
                )
                for cell in steps:
                    results.append(_measure_cell(setup, workers, cell, probe, cost))
        api = [cell for cell in cells if cell.kind == "api"]
        if api:
            with setup.workers() as workers:
                for worker in workers.values():
                    worker.request(
                        "load_api",
                        path=str(path),
                        num_threads=setup.num_threads,
                        context=API_PROMPT + NUM_NEW_TOKENS,
                    )
                results += [_measure_cell(setup, workers, cell, probe, cost) for cell in api]
    return results, engines


def _load(
    setup: Setup, workers: Mapping[str, Worker], path: Path, cells: Sequence[Cell]
) -> dict[str, dict[str, Any]]:
    """Load on both, and see that both run the same model.

    Raises:
        WorkerError: they could not, or their logits do not agree.
    """
    loaded = {
        name: worker.request(
            "load",
            path=str(path),
            num_threads=setup.num_threads,
            context=max(cell.context for cell in cells),
            num_streams=max((cell.size for cell in cells if cell.kind == "streams"), default=0),
            stream_len=STREAM_PROMPT + NUM_NEW_TOKENS,
        )
        for name, worker in workers.items()
    }
    ours, theirs = (np.array(loaded[engine]["logits"]) for engine in ENGINES)
    correlation = float(np.corrcoef(ours, theirs)[0, 1])
    if not correlation >= MIN_CORRELATION:
        raise WorkerError(f"the engines' logits differ: their correlation is {correlation:.3f}")
    return loaded


def _measure_startup(setup: Setup, engine: str, path: Path) -> dict[str, float]:
    """Load in a new process, compute a little, look at its memory."""
    with setup.worker(engine) as worker:
        loaded = worker.request(
            "load",
            path=str(path),
            num_threads=setup.num_threads,
            context=1024,
            num_streams=0,
            stream_len=0,
        )
        worker.request("prefill", num_tokens=512)
        worker.request("decode", depth=512, num_tokens=8)
        used = worker.request("memory")
    numbers = {key: value for key, value in loaded.items() if isinstance(value, float)}
    return numbers | used


def _measure_cell(
    setup: Setup,
    workers: Mapping[str, Worker],
    cell: Cell,
    probe: Callable[[], dict[str, float]],
    cost: ModelCost,
) -> dict[str, Any]:
    rounds = _alternate(setup, lambda engine: _ask(workers[engine], cell), probe, workers)
    return _summary(cell, rounds, cost)


def _ask(worker: Worker, cell: Cell) -> dict[str, float]:
    if cell.kind == "prefill":
        measured = worker.request("prefill", num_tokens=cell.size)
    elif cell.kind == "decode":
        measured = worker.request("decode", depth=cell.size, num_tokens=NUM_NEW_TOKENS)
    elif cell.kind == "streams":
        measured = worker.request(
            "streams",
            num_streams=cell.size,
            prompt_len=STREAM_PROMPT,
            num_tokens=NUM_NEW_TOKENS,
        )
    else:
        seed = int.from_bytes(os.urandom(4), "big")  # a new prompt: none is found in a cache
        measured = worker.request(
            "generate", prompt_len=API_PROMPT, num_tokens=NUM_NEW_TOKENS, seed=seed
        )
    return measured | {"value": cell.num_tokens / measured["seconds"]}


def _alternate(
    setup: Setup,
    measure: Callable[[str], dict[str, float]],
    probe: Callable[[], dict[str, float]],
    workers: Mapping[str, Worker],
) -> Iterator[dict[str, Any]]:
    """Rounds of both engines, the first one to warm up.  The order flips from round to round."""
    for number in range(setup.num_rounds + 1):
        order = ENGINES if number % 2 == 0 else ENGINES[::-1]
        outcome: dict[str, Any] = {"order": list(order), "warm_up": number == 0}
        outcome["machine"] = probe()
        for engine in order:
            idle = [worker for name, worker in workers.items() if name != engine]
            load_average = os.getloadavg()[0]
            idle_before_s = sum(worker.cpu_seconds() for worker in idle)
            try:
                measured = measure(engine)
            except WorkerError as error:
                print(f"  {error}", file=sys.stderr)
                outcome[engine] = {"error": str(error)}
                continue
            idle_s = sum(worker.cpu_seconds() for worker in idle) - idle_before_s
            outcome[engine] = measured | {
                "load_average": load_average,
                "idle_engine_cores": idle_s / measured["seconds"],
            }
        yield outcome


def _pick(rounds: Iterable[dict[str, Any]], cell: Cell) -> Iterator[dict[str, Any]]:
    """Rounds of starting up, seen as one of the two cells that come of them."""
    for outcome in rounds:
        picked = dict(outcome)
        for engine in ENGINES:
            measured = outcome[engine]
            if "error" not in measured:
                is_load = cell.kind == "load"
                value = measured["seconds"] if is_load else measured["peak_bytes"] / 1e6
                picked[engine] = measured | {"value": value}
        yield picked


def _summary(cell: Cell, rounds: Iterable[dict[str, Any]], cost: ModelCost) -> dict[str, Any]:
    """Medians, also of the rounds' ratios, and fractions of what the machine did meanwhile."""
    print(f"{time.strftime('%H:%M:%S')}   {cell.name}", file=sys.stderr)
    rounds = list(rounds)
    counted = [outcome for outcome in rounds if not outcome["warm_up"]]
    result: dict[str, Any] = {"cell": cell.name, "unit": cell.unit, "rounds": rounds}
    machine = {
        key: statistics.median(outcome["machine"][key] for outcome in counted)
        for key in counted[0]["machine"]
    }
    result["machine"] = machine
    for engine in ENGINES:
        figures = [outcome[engine] for outcome in counted if "error" not in outcome[engine]]
        if not figures:
            result[engine] = None
            continue
        value = statistics.median(figure["value"] for figure in figures)
        read = cost.bytes_per_s(cell, value)
        macs = cost.macs_per_s(cell, value)
        result[engine] = {
            "value": value,
            "lowest": min(figure["value"] for figure in figures),
            "highest": max(figure["value"] for figure in figures),
            "of_read_bandwidth": read and read / machine["read_bytes_per_s"],
            "of_int8_peak": macs and macs / machine["int8_macs_per_s"],
            "disturbed": cell.kind != "memory" and any(map(_is_disturbed, figures)),
        }
    ratios = [
        outcome["quintet"]["value"] / outcome["llama.cpp"]["value"]
        for outcome in counted
        if all("error" not in outcome[engine] for engine in ENGINES)
    ]
    result["ratio"] = statistics.median(ratios) if ratios else None
    return result


def _is_disturbed(figure: Mapping[str, float]) -> bool:
    watched = ("foreign_cores", "stolen_cores", "idle_engine_cores")
    allowed = DISTURBED_CORES + TICKS_S / figure["seconds"]
    return any(figure[name] > allowed for name in watched)
