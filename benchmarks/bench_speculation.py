"""What speculation gains on an answer that repeats its prompt, and costs on one that does not.

    python benchmarks/bench_speculation.py MODEL.gguf [--draft SMALL.gguf]

The model's weights may be random: every step is computed in full, then the logits are
overruled so that the answer is known.  What is measured is therefore the cost of real
steps under three scripts:

    copy     the prompt, word for word
    edit     the prompt with one token in 25 replaced
    novel    random tokens: every guess is wrong

Without --draft the guesses are n-gram lookups.  Prints tokens per second without and
with speculation, medians of `--repeat` runs that take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
from pathlib import Path

import numpy as np

from quintet.backends.base import Executor, Float32Array, StepInput
from quintet.config import DraftSpeculation, EngineConfig, NgramSpeculation
from quintet.engine.engine import Engine
from quintet.engine.loading import ModelOptions, load
from quintet.engine.request import Request
from quintet.sampling.params import SamplingParams

TEXT = (
    "The harbour master counted the boats twice before he wrote the number down. Nine had left "
    "at dawn, and eight had come back with the tide. He asked the crew of the last one what they "
    "had seen, and they said that a white sail had turned north behind the island, against the "
    "wind, as if it knew a better way. That night he lit the lamp himself and sat beside it until "
    "morning, and when the ninth boat came in at last nobody asked where it had been. "
)


class Scripted:
    """An executor whose answer is known: computes each step, then overrules its logits."""

    def __init__(self, executor: Executor, first_answer: int) -> None:
        self._executor = executor
        self._first_answer = first_answer
        self.answer: list[int] = []
        self.num_blocks = executor.num_blocks
        self.vocab_size = executor.vocab_size
        self.max_num_batched_tokens = executor.max_num_batched_tokens
        self.max_logits_rows = executor.max_logits_rows

    def run(self, step: StepInput) -> Float32Array:
        logits = self._executor.run(step)
        for row, place in zip(logits, step.positions[step.logits_rows], strict=True):
            token = self.answer[(int(place) + 1 - self._first_answer) % len(self.answer)]
            row[token] = np.max(row) + 20
        return logits

    def close(self) -> None:
        self._executor.close()


def make_engine(path: Path, config: EngineConfig) -> tuple[Engine, list[int]]:
    loaded = load(path, ModelOptions(), config)
    prompt = loaded.tokenizer.encode(TEXT)
    engine = loaded.engine
    engine._executor = Scripted(engine._executor, len(prompt))
    drafter = engine._speculator._drafter
    if config.draft_speculation is not None:
        drafter._executor = Scripted(drafter._executor, len(prompt))
    return engine, prompt


def scripts(prompt: list[int], vocab_size: int) -> dict[str, list[int]]:
    random_ids = random.Random(3)
    edit = [random_ids.randrange(vocab_size) if i % 25 == 24 else t for i, t in enumerate(prompt)]
    decoy = [random_ids.randrange(vocab_size) if i % 3 else 9 for i in range(len(prompt))]
    decoy = [8 if i % 3 == 1 else token for i, token in enumerate(decoy)]
    return {"copy": prompt, "edit": edit, "decoy": decoy}


def tokens_per_second(engine: Engine, prompt: list[int], answer: list[int], batch: int) -> float:
    """Of decoding: from the first token of the answer to the last."""
    engine._executor.answer = answer
    if isinstance(drafter_executor := _drafter_executor(engine), Scripted):
        drafter_executor.answer = answer
    params = SamplingParams(max_tokens=len(answer), temperature=0.0, ignore_eos=True)
    for i in range(batch):
        engine.add(Request(f"r{i}", tuple(prompt), params))
    generated: list[int] = []
    started_s, num_at_start = 0.0, 0
    while engine.has_work:
        chunks = engine.step()
        generated += [t for c in chunks if c.request_id == "r0" for t in c.token_ids]
        if chunks and not started_s:
            started_s, num_at_start = time.perf_counter(), len(generated)
    seconds = time.perf_counter() - started_s
    if generated != answer:
        raise SystemExit("the answer is not the script")
    return batch * (len(answer) - num_at_start) / seconds


def _drafter_executor(engine: Engine) -> object:
    return getattr(engine._speculator._drafter, "_executor", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()

    plain = EngineConfig(
        max_num_seqs=max(8, arguments.batch), max_model_len=512, kv_cache_bytes=2**29,
        enable_prefix_cache=False,
    )  # fmt: skip
    guessing = dataclasses.replace(plain, ngram_speculation=NgramSpeculation())
    if arguments.draft:
        draft = DraftSpeculation(model=str(arguments.draft))
        guessing = dataclasses.replace(plain, draft_speculation=draft)
    engines = []
    for config in (plain, guessing):
        engine, prompt = make_engine(arguments.model, config)
        engines.append(engine)
    print(f"{arguments.model.name}, {len(prompt)} tokens, batch {arguments.batch}")
    for name, answer in scripts(prompt, engines[0].limits.vocab_size).items():
        rates: list[list[float]] = [[], []]
        before = engines[1].stats()
        for _ in range(arguments.repeat):
            for engine, own in zip(engines, rates, strict=True):
                own.append(tokens_per_second(engine, prompt, answer, arguments.batch))
        without, with_ = map(statistics.median, rates)
        after = engines[1].stats()
        drafted = after.num_draft_tokens - before.num_draft_tokens
        accepted = after.num_accepted_tokens - before.num_accepted_tokens
        print(
            f"{name:6} {without:7.1f} -> {with_:7.1f} tokens/s  x{with_ / without:.2f}  "
            f"{accepted} of {drafted} guesses right"
        )


if __name__ == "__main__":
    main()
