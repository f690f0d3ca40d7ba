"""
Quantises one random model with Quintet and with llama.cpp, in alternating rounds, and compares
time and error.

    python benchmarks/bench_quantize.py --type Q4_K_M --peer-python /path/to/python

The peer's Python needs llama-cpp-python; $QUINTET_PEER_PYTHON may name it instead of the option.
Both write to the same folder with the same number of threads; the input is in the page cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_writer import Field, GGUFWriter, tensor_info
from quintet.tools.quantize import quantize
from quintet.tools.recipes import recipe_named

PEER = """
import ctypes, sys, time
import llama_cpp

@llama_cpp.llama_log_callback
def quiet(level, text, data):
    pass

llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = int(sys.argv[3]), int(sys.argv[4])
start = time.perf_counter()
status = llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params)
assert status == 0
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", default=os.environ.get("QUINTET_PEER_PYTHON"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    source, ours, theirs = (folder / f"{name}.gguf" for name in ("f16", "ours", "theirs"))
    num_weights = write_model(source, options.layers, options.hidden)
    print(f"{num_weights / 1e6:.0f} million weights in F16 to {options.type}, ", end="")
    print(f"{options.threads} threads, {options.rounds} rounds")
    our_times, peer_times = [], []
    for _ in range(options.rounds):
        result = quantize(source, ours, options.type, num_threads=options.threads)
        our_times.append(result.seconds)
        if options.peer_python:
            peer_times.append(run_peer(source, theirs, options))
    report("quintet", our_times, num_weights)
    if peer_times:
        report("llama.cpp", peer_times, num_weights)
        ratios = [a / b for a, b in zip(peer_times, our_times, strict=True)]
        print(f"quintet is {statistics.median(ratios):.1f} times as fast (median of rounds)")
        show_errors(source, ours, theirs)


def write_model(path: Path, num_layers: int, hidden: int) -> int:
    """A random llama with long-tailed weights; returns how many."""
    ffn, kv = hidden * 11 // 4 // 256 * 256, hidden // 4
    shapes = {"token_embd": (4096, hidden), "output_norm": (hidden,), "output": (4096, hidden)}
    for layer in range(num_layers):
        block = {
            "attn_norm": (hidden,),
            "ffn_norm": (hidden,),
            "attn_q": (hidden, hidden),
            "attn_k": (kv, hidden),
            "attn_v": (kv, hidden),
            "attn_output": (hidden, hidden),
            "ffn_gate": (ffn, hidden),
            "ffn_up": (ffn, hidden),
            "ffn_down": (hidden, ffn),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    values = {
        "block_count": num_layers,
        "context_length": 512,
        "embedding_length": hidden,
        "feed_forward_length": ffn,
        "attention.head_count": hidden // 64,
        "attention.head_count_kv": hidden // 256,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": 4096,
    }
    fields = {"general.architecture": Field.of("llama"), "tokenizer.ggml.model": Field.of("none")}
    fields |= {f"llama.{key}": Field.of(value) for key, value in values.items()}
    infos = [
        tensor_info(f"{name}.weight", shape, GGMLType.F16 if len(shape) > 1 else GGMLType.F32)
        for name, shape in shapes.items()
    ]
    random = np.random.default_rng(0)
    with GGUFWriter(path, fields, infos) as writer:
        for info in infos:
            weights = random.standard_t(5, info.shape).astype(np.float32) * 0.02
            dtype = np.float16 if info.ggml_type == GGMLType.F16 else np.float32
            writer.write(info.name, weights.astype(dtype).reshape(-1).view(np.uint8))
    return sum(int(np.prod(info.shape)) for info in infos)


def run_peer(source: Path, output: Path, options: argparse.Namespace) -> float:
    """Seconds that llama_model_quantize takes in a process of its own."""
    file_type = str(recipe_named(options.type).file_type)
    command = [options.peer_python, "-c", PEER, source, output, file_type, str(options.threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"the peer failed: {result.stderr.strip()[-500:]}")
    return float(result.stdout)


def report(name: str, times: list[float], num_weights: int) -> None:
    median = statistics.median(times)
    print(f"{name:10} {median:7.2f} s  {num_weights / median / 1e6:6.1f} million weights/s", end="")
    print("  rounds: " + " ".join(f"{each:.2f}" for each in times))


def show_errors(source: Path, ours: Path, theirs: Path) -> None:
    """The ratio of root mean square errors over tensors of the same format."""
    ratios: dict[str, list[float]] = {}
    with (
        GGUFFile.open(source) as exact,
        GGUFFile.open(ours) as a,
        GGUFFile.open(theirs) as b,
    ):
        for name, info in a.tensors.items():
            if b.tensors[name].ggml_type != info.ggml_type or len(info.shape) < 2:
                continue
            weights = exact.dequantized(name)
            first, second = (np.linalg.norm(file.dequantized(name) - weights) for file in (a, b))
            if second:
                ratios.setdefault(info.ggml_type.name, []).append(first / second)
    for kind, found in sorted(ratios.items()):
        print(f"error of {kind}: {statistics.mean(found):.4f} of llama.cpp's, at most", end=" ")
        print(f"{max(found):.4f} ({len(found)} tensors)")


if __name__ == "__main__":
    main()
