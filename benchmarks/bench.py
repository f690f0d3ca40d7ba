"""What a token costs besides the model: call overhead, engine loop, sampling, text, files, import.

    python benchmarks/bench.py [--vocab VOCAB.gguf] [--json FILE]

The model is two small layers under a vocabulary of 151,936 tokens, so that steps are short and
what surrounds them shows; the caches are warmer for it than behind a large model.  Figures are
medians but where a line says `best`; lines with a budget show it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_formats import OPEN_BUDGET_MS, bench_open
from bench_sampling import CASES, ms_per_row
from peers.models import Shape, write_f16
from rich.console import Console
from rich.table import Table

from quintet.backends import StepInput, load_executor
from quintet.backends.base import BLOCK_SIZE, Float32Array
from quintet.backends.cpu import CPUExecutor
from quintet.config import EngineConfig
from quintet.engine.engine import Engine
from quintet.engine.request import Request
from quintet.engine.thread import EngineThread
from quintet.formats.gguf import GGUFFile
from quintet.models import load_model
from quintet.runtime import Runtime
from quintet.sampling import SamplingParams
from quintet.tokenizer import Detokenizer, Tokenizer
from quintet.tools.machine import describe_machine

SHAPE = Shape("qwen3", 2, 256, 512, 4, 2, 64, 1e6, 8192, 151_936, "qwen2")
IMPORT_BUDGET_MS = 150.0
SAMPLING_BUDGETS_MS = {"greedy": 0.1, "top-k 40, top-p 0.95, temperature 0.8": 0.5}
NUM_TEXT_TOKENS = 10_000
BATCH_SIZES = (1, 8, 32)


@dataclass(frozen=True)
class Line:
    """A figure of the table."""

    name: str
    value: float
    unit: str
    budget: float | None = None


class TimedExecutor:
    """An executor that knows when its native call began and how long it took.  See `Executor`."""

    def __init__(self, executor: CPUExecutor) -> None:
        self._executor = executor
        self.last_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def run(self, step: StepInput) -> Float32Array:
        began_s = time.monotonic()
        logits = self._executor.run(step)
        self.last_s = time.monotonic() - began_s
        return logits


@dataclass
class Loaded:
    """The small model, taken apart as far as the measurements need."""

    executor: CPUExecutor
    timed: TimedExecutor
    tokenizer: Tokenizer
    engine: Engine


@contextmanager
def small_model(path: Path) -> Iterator[Loaded]:
    """Load the model, with an engine over it whose native calls are timed."""
    config = EngineConfig(max_num_seqs=max(BATCH_SIZES), enable_prefix_cache=False)
    with GGUFFile.open(path) as source:
        tokenizer = Tokenizer.from_gguf(source.metadata)
        executor = load_executor(
            load_model(source),
            num_blocks=max(BATCH_SIZES) * 512 // BLOCK_SIZE,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_logits_rows=config.max_num_seqs,
        )
    assert isinstance(executor, CPUExecutor)
    timed = TimedExecutor(executor)
    engine = Engine(
        timed,
        lambda prompt_ids, _: Detokenizer(tokenizer, prompt_ids=prompt_ids),
        eos_ids=frozenset(),
        max_model_len=512,
        config=config,
    )
    yield Loaded(executor, timed, tokenizer, engine)
    engine.close()


def call_overhead(model: Loaded) -> Iterator[Line]:
    """From a Python call to the first phase of the native plan; and from a user's call."""
    step = StepInput(
        token_ids=np.zeros(1, np.int32),
        positions=np.zeros(1, np.int32),
        cu_seqlens=np.array([0, 1], np.int32),
        slot_mapping=np.zeros(1, np.int32),
        block_tables=np.zeros((1, 1), np.int32),
        seq_lens=np.ones(1, np.int32),
        logits_rows=np.zeros(1, np.int32),
    )
    plan = model.executor.plan
    plan.start_profile()
    delays_s = []
    for _ in range(500):
        called_s = time.monotonic()
        model.executor.run(step)
        delays_s.append(plan.first_phase_s - called_s)
    yield Line("Executor.run to the first kernel", statistics.median(delays_s) * 1e6, "us")


def user_call_overhead(model: Loaded) -> Iterator[Line]:
    """From a user's call, through the engine's thread.  Closes the model."""
    plan = model.executor.plan
    runtime = Runtime(EngineThread(model.engine), model.tokenizer)
    params = SamplingParams(temperature=0.0, max_tokens=1)
    delays_s = []
    for _ in range(100):
        called_s = time.monotonic()
        for request in runtime.requests([1], params):
            list(runtime.client.submit(request))
        delays_s.append(plan.first_phase_s - called_s)
    runtime.client.close()
    yield Line("LLM.generate to the first kernel", statistics.median(delays_s) * 1e6, "us")


def engine_loop(model: Loaded, batch_size: int, num_new: int) -> Line:
    """A decode step outside the native call: schedule, build, sample greedily, detokenise."""
    params = SamplingParams(temperature=0.0, max_tokens=num_new, ignore_eos=True)
    for i in range(batch_size):
        model.engine.add(Request(f"{batch_size}-{i}", tuple(range(2 + i, 18 + i)), params))
    outside_s = []
    while model.engine.has_work:
        began_s = time.monotonic()
        model.engine.step()
        outside_s.append(time.monotonic() - began_s - model.timed.last_s)
    median_s = statistics.median(outside_s[8:-8])  # not the prompts, not the ends
    return Line(f"engine step outside the native call, {batch_size} rows", median_s * 1e6, "us")


def sampling() -> Iterator[Line]:
    """Per row of logits, the quickest of many calls."""
    logits = np.random.default_rng(0).normal(0, 3, (1, SHAPE.vocab_size)).astype(np.float32)
    for name, budget_ms in SAMPLING_BUDGETS_MS.items():
        yield Line(f"sampling, {name} (best)", ms_per_row(CASES[name], logits), "ms", budget_ms)


def text(tokenizer: Tokenizer) -> Iterator[Line]:
    """Text to ids and back."""
    random = np.random.default_rng(0)
    source = tokenizer.decode(random.integers(0, 100_000, NUM_TEXT_TOKENS).tolist())
    words = " ".join(source[i : i + 7] for i in range(0, len(source), 7))
    ids = tokenizer.encode(words)[:NUM_TEXT_TOKENS]
    prompt = tokenizer.decode(ids)
    count = f"{NUM_TEXT_TOKENS:,} tokens"
    yield Line(f"tokenise {count}", _median_ms(lambda: tokenizer.encode(prompt)), "ms")
    yield Line(f"detokenise {count} at once", _median_ms(lambda: tokenizer.decode(ids)), "ms")

    def one_by_one() -> None:
        detokenizer = Detokenizer(tokenizer)
        for token_id in ids:
            detokenizer.push(token_id)

    yield Line("detokenise a stream, per token", _median_ms(one_by_one) * 1e3 / len(ids), "us")


def files(path: Path) -> Iterator[Line]:
    """Opening a GGUF with a large vocabulary."""
    opening = bench_open(path)
    count = f"{opening['num_tokens']:,} tokens"
    yield Line(f"open a GGUF of {count} (best)", opening["quintet_ms"], "ms", OPEN_BUDGET_MS)
    yield Line("  and decode the tokens (best)", opening["quintet_with_tokens_ms"], "ms")
    yield Line("  the gguf package", opening["gguf_ms"], "ms")


def imports() -> Line:
    """`import quintet` in a new interpreter, which has loaded nothing else."""
    program = "import time; t = time.perf_counter(); import quintet; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", program]
    times_s = [float(subprocess.check_output(command, env=os.environ)) for _ in range(7)]
    return Line("import quintet (best)", min(times_s) * 1e3, "ms", IMPORT_BUDGET_MS)


def measure(path: Path) -> Iterator[Line]:
    """Every line, in order."""
    with small_model(path) as model:
        for batch_size in BATCH_SIZES:
            yield engine_loop(model, batch_size, num_new=120)
        yield from text(model.tokenizer)
        yield from call_overhead(model)
        yield from user_call_overhead(model)
    yield from sampling()
    yield from files(path)
    yield imports()


def _median_ms(run: Callable[[], object], repeats: int = 9) -> float:
    times_s = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s) * 1e3


def _show(lines: Sequence[Line]) -> None:
    table = Table("", box=None)
    for name in ("value", "unit", "budget"):
        table.add_column(name, justify="right")
    for line in lines:
        budget = "" if line.budget is None else f"{line.budget:g}"
        table.add_row(line.name, _number(line.value), line.unit, budget)
    machine = describe_machine()
    console = Console(highlight=False, markup=False)
    console.print(
        f"{machine.cpu}, {machine.num_threads} threads, {machine.kernels} kernels, quintet "
        f"{machine.quintet}, Python {machine.python}, load {os.getloadavg()[0]:.1f}",
        soft_wrap=True,
    )
    console.print(table)


def _number(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 3}f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=Path, help="a GGUF whose tokenizer the model gets")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.gguf"
        write_f16(SHAPE, path, options.vocab)
        lines = list(measure(path))
    _show(lines)
    if options.json is not None:
        report = {
            "benchmark": "overheads",
            "machine": asdict(describe_machine()),
            "load_average": os.getloadavg()[0],
            "lines": [asdict(line) for line in lines],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
