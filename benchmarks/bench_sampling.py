"""Time of the sampler per row of logits.

    python benchmarks/bench_sampling.py [--vocab-size N] [--rows N] [--threads N] [--json FILE]

Logits are normal with standard deviation 3, which leaves top-p far more tokens than a trained
model's rows do, so the figures are on the high side; the last line is a fully uniform row, the
worst case of top-p.  Each figure is the quickest of 60 calls of `sample()`, Python included,
divided by the number of rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quintet._native import ThreadPool
from quintet.sampling import RowSampler, SamplingParams, sample

CASES = {
    "greedy": SamplingParams.greedy(),
    "temperature 0.8": SamplingParams(temperature=0.8),
    "top-k 40, top-p 0.95, temperature 0.8": SamplingParams(temperature=0.8, top_k=40, top_p=0.95),
    "top-p 0.95, temperature 0.8": SamplingParams(temperature=0.8, top_p=0.95),
    "min-p 0.05": SamplingParams(min_p=0.05),
    "top-k 1000": SamplingParams(top_k=1000),
    "top-k 5000": SamplingParams(top_k=5000),
    "greedy, repetition penalty, 2,000 tokens": SamplingParams(
        temperature=0.0, repetition_penalty=1.1
    ),
    "top-k 40, all penalties, 2,000 tokens": SamplingParams(
        top_k=40, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=0.5
    ),
    "greedy, 20 logprobs": SamplingParams(temperature=0.0, logprobs=20),
    "typical-p 0.9": SamplingParams(typical_p=0.9),
    "top-n-sigma 1": SamplingParams(top_n_sigma=1.0),
    "dynamic temperature": SamplingParams(dynatemp_range=0.5),
    "XTC 0.1 at every token": SamplingParams(xtc_probability=1.0),
    "greedy, DRY, 2,000 tokens": SamplingParams(temperature=0.0, dry_multiplier=0.8),
    "Mirostat 1": SamplingParams(mirostat=1),
    "Mirostat 2": SamplingParams(mirostat=2),
    "top-p 0.95 before temperature 0.8": SamplingParams(
        top_p=0.95, temperature=0.8, sampler_order=["top_p", "temperature"]
    ),
}
NUM_PROMPT_TOKENS = 2000
NUM_CALLS = 60


def ms_per_row(
    params: SamplingParams, logits: NDArray[np.float32], threads: ThreadPool | None = None
) -> float:
    """Milliseconds that one row takes, in the quickest call."""
    num_rows, vocab_size = logits.shape
    prompt_ids = np.random.default_rng(1).integers(0, vocab_size, NUM_PROMPT_TOKENS).tolist()
    rows = [
        RowSampler(
            params,
            vocab_size=vocab_size,
            eos_ids=frozenset({0}),
            prompt_ids=prompt_ids,
            seed=seed,
        )
        for seed in range(num_rows)
    ]
    seconds = []
    for _ in range(NUM_CALLS):
        began = time.perf_counter()
        sample(logits, rows, threads=threads)
        seconds.append(time.perf_counter() - began)
    return min(seconds) * 1e3 / num_rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of the sampler per row of logits.")
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()

    threads = ThreadPool(arguments.threads)
    shape = (arguments.rows, arguments.vocab_size)
    normal = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    figures = {name: ms_per_row(params, normal, threads) for name, params in CASES.items()}
    figures["top-p 0.95, uniform row"] = ms_per_row(
        SamplingParams(top_p=0.95), np.zeros(shape, np.float32), threads
    )

    print(
        f"vocabulary {arguments.vocab_size:,}, {arguments.rows} row(s) a call, "
        f"{threads.num_threads} thread(s)"
    )
    for name, figure in figures.items():
        print(f"{name:42} {figure:8.3f} ms/row")
    if arguments.json is not None:
        report = {
            "benchmark": "sampling",
            "vocab_size": arguments.vocab_size,
            "rows": arguments.rows,
            "threads": threads.num_threads,
            "ms_per_row": figures,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
