"""File formats: time to open a large vocabulary, and dequantisation speed per number format.

    python benchmarks/bench_formats.py [VOCAB.gguf] [--json FILE]

Without a file it writes one the size of Qwen2's tokenizer: 151,936 tokens and 151,387 merges.
Each figure is the best of several runs; the comparison is the `gguf` package.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from rich.console import Console
from rich.table import Table

from quintet.formats.ggml_types import DEQUANTIZABLE, GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.formats.quants import dequantize

NUM_TOKENS = 151_936
NUM_MERGES = 151_387
OPEN_BUDGET_MS = 150.0

# As many weights as an attention matrix of a small model.
ROWS, WIDTH = 1024, 2048


def best_s(run: Callable[[], object], *, repeats: int) -> float:
    """The shortest of `repeats` runs, in seconds."""
    times_s = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - start)
    return min(times_s)


def write_vocabulary(path: Path) -> None:
    """A tokenizer file of Qwen2's size; token lengths vary as they do there."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 14, NUM_TOKENS).tolist()
    letters = "".join(map(chr, random.integers(97, 123, 16 * 1024).tolist()))
    tokens = [letters[i % 16_000 :][:length] + str(i) for i, length in enumerate(lengths)]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * NUM_TOKENS)
    writer.add_token_merges([f"{tokens[i]} {tokens[i + 1]}" for i in range(NUM_MERGES)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def bench_open(path: Path) -> dict[str, float]:
    """Milliseconds to open the file, and to open it and make every token a `str`."""

    def open_and_decode() -> object:
        with GGUFFile.open(path) as file:
            return list(file.metadata["tokenizer.ggml.tokens"])

    with GGUFFile.open(path) as file:
        num_tokens = len(file.metadata["tokenizer.ggml.tokens"])
    return {
        "num_tokens": num_tokens,
        "quintet_ms": 1e3 * best_s(lambda: GGUFFile.open(path).close(), repeats=7),
        "quintet_with_tokens_ms": 1e3 * best_s(open_and_decode, repeats=5),
        "gguf_ms": 1e3 * best_s(lambda: gguf.GGUFReader(path), repeats=1),
    }


def bench_dequantize(ggml_type: GGMLType) -> dict[str, float]:
    """Output megabytes (10^6 bytes of float32) per second."""
    row_bytes = WIDTH // ggml_type.block_size * ggml_type.block_bytes
    raw = np.random.default_rng(0).integers(0, 256, (ROWS, row_bytes), dtype=np.uint8)
    oracle_type = gguf.GGMLQuantizationType(ggml_type)
    megabytes = ROWS * WIDTH * 4 / 1e6

    def run_oracle() -> object:
        values = gguf.dequantize(raw, oracle_type)
        return values.copy() if ggml_type == GGMLType.F32 else values  # F32 is only a view there

    with np.errstate(all="ignore"):
        gguf_s = best_s(run_oracle, repeats=5)
    quintet_s = best_s(lambda: dequantize(raw, ggml_type, (ROWS, WIDTH)), repeats=5)
    return {"quintet_mb_per_s": megabytes / quintet_s, "gguf_mb_per_s": megabytes / gguf_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", nargs="?", type=Path, help="a GGUF file with a tokenizer")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()

    if options.vocabulary is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocabulary.gguf"
            write_vocabulary(path)
            opening = bench_open(path)
    else:
        opening = bench_open(options.vocabulary)
    formats = {known.name: bench_dequantize(known) for known in sorted(DEQUANTIZABLE)}

    console = Console()
    table = Table("", "ms", title=f"Open a vocabulary of {opening['num_tokens']:,} tokens")
    table.add_row("quintet", f"{opening['quintet_ms']:.1f} (budget {OPEN_BUDGET_MS:.0f})")
    table.add_row("quintet, tokens decoded", f"{opening['quintet_with_tokens_ms']:.1f}")
    table.add_row("gguf package", f"{opening['gguf_ms']:.1f}")
    console.print(table)
    table = Table("format", "quintet", "gguf package", title="Dequantise, MB/s of float32")
    for name, speed in formats.items():
        ours, theirs = speed["quintet_mb_per_s"], speed["gguf_mb_per_s"]
        table.add_row(name, f"{ours:,.0f}", f"{theirs:,.0f}")
    console.print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"open": opening, "dequantize": formats}, indent=2))


if __name__ == "__main__":
    main()
