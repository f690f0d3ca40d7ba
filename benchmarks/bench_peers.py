"""Quintet against llama.cpp: the same files and threads, alternately, in one run.

    python benchmarks/bench_peers.py --quick
    python benchmarks/bench_peers.py --models qwen3-0.6b --formats Q4_0,Q8_0

The first run builds the peer (some ten minutes) and the model files under build/bench-peers/.
Each engine runs in a process of its own; while one works the other sleeps.  Every cell is measured
in rounds A B, B A, A B ..., after one to warm up, with the machine's read bandwidth and int8 peak
between them.  docs/performance.md says what the cells are and how to read them; a report under
benchmarks/results/, where it goes unless --quick or --json says otherwise, is put into it.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers import environment
from peers.cells import CELLS, ModelCost
from peers.client import WorkerError
from peers.models import FORMATS, SHAPES
from peers.report import markdown, update_document
from peers.runner import Setup, measure_model

from quintet._native import default_num_threads
from quintet.tools.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "performance.md"

MODELS = ["qwen3-0.6b", "qwen3-1.7b", "llama-3.2-1b"]
QUICK_MODELS = ["qwen3-0.6b"]
QUICK_FORMATS = ["Q4_0", "Q8_0"]
QUICK_CELLS = ["load", "memory", "prefill-512", "decode-0", "decode-1024", "streams-8", "api"]


def main() -> None:
    # An orderly end, so that the workers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = _options()
    build = options.build_dir
    (build / "models").mkdir(parents=True, exist_ok=True)
    if options.peer_python:
        peer = options.peer_python.absolute()  # not resolved: a link is what makes it a venv
        environment.check(peer)
    else:
        peer = environment.peer_python(build, options.isa)
    setup = Setup(
        pythons={"quintet": Path(sys.executable), "llama.cpp": peer},
        environment={"QUINTET_KERNELS": "avx2"} if options.isa == "avx2" else {},
        log=build / "workers.log",
        num_threads=options.threads,
        num_rounds=options.rounds,
    )
    report = _read_or_start(options)
    done = {(result["model"], result["format"]) for result in report["results"]}
    for model in options.models:
        for format_name in options.formats:
            if (model, format_name) in done:
                continue
            path = _model_file(build / "models", peer, model, format_name, options.vocab)
            print(f"{time.strftime('%H:%M:%S')} {path.stem}", file=sys.stderr)
            result: dict[str, Any] = {"model": model, "format": format_name}
            try:
                cost = ModelCost.of(path, SHAPES[model])
                result["cells"], engines = measure_model(setup, path, cost, options.cells)
                result["file_bytes"] = path.stat().st_size
                if engines is not None:
                    report["versions"], report["kernels"] = engines.versions, engines.kernels
            except WorkerError as error:  # no model of this kind on one side: the rest goes on
                result["error"] = str(error)
            report["results"].append(result)
            _write(options.json, report)  # after each file, so that a run can be resumed
    print(markdown(report))
    _draw(peer, options.json)
    if options.json.parent == RESULTS:
        images = Path("..") / options.json.with_suffix("").relative_to(ROOT)
        update_document(DOCUMENT, report, images)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = {cell.name: cell for cell in CELLS}
    parser.add_argument("--models", type=_list(list(SHAPES)), help=", ".join(SHAPES))
    parser.add_argument("--formats", type=_list(FORMATS), help=", ".join(FORMATS))
    parser.add_argument("--cells", type=_list(list(names)), help=", ".join(names))
    parser.add_argument("--rounds", type=int, help="that count (3; 2 with --quick)")
    parser.add_argument("--threads", type=int, default=default_num_threads())
    parser.add_argument(
        "--quick", action="store_true", help="one model, two formats, few cells: a few minutes"
    )
    parser.add_argument(
        "--isa",
        choices=("native", "avx2"),
        default="native",
        help="avx2: the AVX2 kernels of both sides, on any CPU",
    )
    parser.add_argument("--vocab", type=Path, help="a GGUF whose tokenizer the models get")
    parser.add_argument(
        "--json", type=Path, help="the report (benchmarks/results/MACHINE-DATE.json)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep what the report already has of this run"
    )
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build" / "bench-peers")
    parser.add_argument(
        "--peer-python",
        type=Path,
        help="an environment that has llama-cpp-python, gguf and matplotlib already",
    )
    options = parser.parse_args()
    options.models = options.models or (QUICK_MODELS if options.quick else MODELS)
    options.formats = options.formats or (QUICK_FORMATS if options.quick else list(FORMATS))
    chosen = options.cells or (QUICK_CELLS if options.quick else list(names))
    options.cells = [cell for cell in CELLS if cell.name in chosen]  # in the order that saves work
    options.rounds = options.rounds or (2 if options.quick else 3)
    options.build_dir = options.build_dir.resolve()
    options.json = (options.json or _default_report(options)).resolve()
    return options


def _list(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"expected some of {', '.join(known)}, found {', '.join(unknown)}"
            )
        return names

    return parse


def _default_report(options: argparse.Namespace) -> Path:
    """Quick runs do not belong among the results."""
    if options.quick:
        return options.build_dir / "quick.json"
    RESULTS.mkdir(exist_ok=True)
    machine = re.sub(r"[^a-z0-9]+", "-", describe_machine().cpu.lower()).strip("-")
    suffix = "" if options.isa == "native" else f"-{options.isa}"
    return RESULTS / f"{machine}-{options.threads}t-{time.strftime('%Y-%m-%d')}{suffix}.json"


def _read_or_start(options: argparse.Namespace) -> dict[str, Any]:
    if options.resume and options.json.exists():
        report: dict[str, Any] = json.loads(options.json.read_text())
        report["results"] = [result for result in report["results"] if "error" not in result]
        return report
    return {
        "benchmark": "peers",
        "date": time.strftime("%Y-%m-%d"),
        "machine": asdict(describe_machine()),
        "cpu_identity": _cpu_identity(),
        "num_threads": options.threads,
        "num_rounds": options.rounds,
        "isa": options.isa,
        "peer_flags": "its own environment's flags"
        if options.peer_python
        else " ".join(environment.CMAKE_FLAGS[options.isa]),
        "versions": {},
        "kernels": {},
        "results": [],
    }


def _model_file(
    folder: Path, peer: Path, model: str, format_name: str, vocabulary: Path | None
) -> Path:
    kind = "" if vocabulary is None else f"-{vocabulary.stem}"
    path = folder / f"{model}{kind}-{format_name}.gguf"
    if not path.exists():
        print(f"writing {path.name}", file=sys.stderr)
        command = [peer, "-m", "peers.models", model, format_name, path]
        if vocabulary is not None:
            command += ["--vocab", vocabulary.resolve()]
        subprocess.run(command, cwd=Path(__file__).parent, check=True, stderr=subprocess.DEVNULL)
    return path


def _write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(report), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    """Figures to six digits: the rest is noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _cpu_identity() -> str:
    """The processor's generation, where its name does not tell: virtual machines often hide it."""
    wanted = ("cpu family", "model", "stepping")
    fields = {}
    for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        if key.strip() in wanted:
            fields[key.strip()] = value.strip()
    return ", ".join(f"{key} {value}" for key, value in fields.items())


def _draw(peer: Path, report: Path) -> None:
    command = [peer, "-m", "peers.plot", report, report.with_suffix("")]
    subprocess.run(command, cwd=Path(__file__).parent, check=True)


if __name__ == "__main__":
    main()
