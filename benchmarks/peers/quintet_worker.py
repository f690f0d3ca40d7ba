"""Quintet as the benchmark's engine: its executor, given the steps the engine would give it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from peers.protocol import CHECK_TOKEN, NUM_CHECK_LOGITS, UBATCH, Measured, Stopwatch, serve
from quintet import LLM, SamplingParams, __version__, _native
from quintet.backends import StepInput, load_executor
from quintet.backends.base import BLOCK_SIZE
from quintet.backends.cpu import CPUExecutor
from quintet.formats.gguf import GGUFFile
from quintet.models import load_model
from quintet.tokenizer import Tokenizer


class QuintetEngine:
    """See `peers.protocol.Engine`.  Sequence 0 is the single stream, 1 to n the parallel ones."""

    def load(
        self, path: str, num_threads: int, context: int, num_streams: int, stream_len: int
    ) -> dict[str, Any]:
        self._tables = _block_tables([context] + [stream_len] * num_streams)
        tokenizer: list[Future[Tokenizer]] = []
        with Stopwatch() as total:
            with (
                Stopwatch() as loading,
                GGUFFile.open(path) as source,
                ThreadPoolExecutor() as pool,  # as the engine does: beside the packing
            ):
                executor = load_executor(
                    load_model(source),
                    num_blocks=sum(map(len, self._tables)),
                    max_num_batched_tokens=max(UBATCH, num_streams),
                    max_logits_rows=max(1, num_streams),
                    num_threads=num_threads,
                    on_compiled=lambda: tokenizer.append(
                        pool.submit(Tokenizer.from_gguf, source.metadata)
                    ),
                )
                tokenizer[0].result()
            assert isinstance(executor, CPUExecutor)
            self._executor = executor
            self._lengths = [0] * len(self._tables)
            self._random = np.random.default_rng(0)
            logits = self._extend([0], [np.array([CHECK_TOKEN])])
        kernels = _native.kernels_info()["active"]
        return total.measured | {
            "load_s": loading.measured["seconds"],
            "logits": logits[0, :NUM_CHECK_LOGITS].tolist(),
            "version": __version__,
            "kernels": kernels,
        }

    def prefill(self, num_tokens: int) -> Measured:
        self._lengths[0] = 0
        tokens = self._draw(num_tokens)
        with Stopwatch() as watch:
            self._fill(0, tokens)
        return watch.measured

    def decode(self, depth: int, num_tokens: int) -> Measured:
        if self._lengths[0] < depth:
            self._fill(0, self._draw(depth - self._lengths[0]))
        self._lengths[0] = depth
        return self._decode([0], num_tokens)

    def streams(self, num_streams: int, prompt_len: int, num_tokens: int) -> Measured:
        sequences = range(1, num_streams + 1)
        for sequence in sequences:
            if self._lengths[sequence] < prompt_len:
                self._lengths[sequence] = 0
                self._fill(sequence, self._draw(prompt_len))
            self._lengths[sequence] = prompt_len
        return self._decode(sequences, num_tokens)

    def load_api(self, path: str, num_threads: int, context: int) -> None:
        self._llm = LLM(path, num_threads=num_threads, max_model_len=context)

    def generate(self, prompt_len: int, num_tokens: int, seed: int) -> Measured:
        random = np.random.default_rng(seed)
        prompt = random.integers(0, self._llm.limits.vocab_size, prompt_len).tolist()
        params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        chunks = self._llm.stream(prompt, params)
        next(chunks)
        with Stopwatch() as watch:
            num_chunks = sum(1 for _ in chunks)
        if num_chunks != num_tokens - 1:
            raise RuntimeError(f"expected {num_tokens - 1} chunks, found {num_chunks}")
        return watch.measured

    def machine(self, num_threads: int) -> dict[str, float]:
        """What the machine does now: bytes read, and int8 multiply-accumulates, per second."""
        return {
            "read_bytes_per_s": _native.measure_read_bandwidth(
                num_threads=num_threads, seconds=0.2
            ),
            "int8_macs_per_s": _native.measure_int8_peak(num_threads=num_threads, seconds=0.1),
        }

    @property
    def plan(self) -> _native.Plan:
        """The executor's, for profiles."""
        return self._executor.plan

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self._executor.vocab_size

    def _decode(self, sequences: Sequence[int], num_tokens: int) -> Measured:
        tokens = self._draw(len(sequences)).reshape(-1, 1)
        with Stopwatch() as watch:
            for _ in range(num_tokens):
                logits = self._extend(sequences, tokens)
                tokens = np.argmax(logits, axis=1).reshape(-1, 1)
        return watch.measured

    def _fill(self, sequence: int, tokens: np.ndarray) -> None:
        for start in range(0, len(tokens), UBATCH):
            chunk = tokens[start : start + UBATCH]
            self._extend([sequence], [chunk], logits=start + UBATCH >= len(tokens))

    def _extend(
        self, sequences: Sequence[int], tokens: Sequence[np.ndarray], *, logits: bool = True
    ) -> np.ndarray:
        """One step: as many new tokens for each sequence; logits [sequences, vocab_size]."""
        count = len(tokens[0])
        starts = np.array([self._lengths[sequence] for sequence in sequences], np.int32)
        ends = starts + count
        positions = (starts[:, None] + np.arange(count, dtype=np.int32)).ravel()
        num_blocks = -(-int(ends.max()) // BLOCK_SIZE)
        tables = np.array([self._tables[sequence][:num_blocks] for sequence in sequences], np.int32)
        rows = np.repeat(np.arange(len(sequences)), count)
        slots = tables[rows, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
        cu_seqlens = np.arange(len(sequences) + 1, dtype=np.int32) * count
        step = StepInput(
            token_ids=np.concatenate(tokens).astype(np.int32),
            positions=positions,
            cu_seqlens=cu_seqlens.astype(np.int32),
            slot_mapping=slots.astype(np.int32),
            block_tables=tables,
            seq_lens=ends,
            logits_rows=cu_seqlens[1:] - 1 if logits else np.empty(0, np.int32),
        )
        for sequence, end in zip(sequences, ends, strict=True):
            self._lengths[sequence] = int(end)
        return self._executor.run(step)

    def _draw(self, count: int) -> np.ndarray:
        return self._random.integers(0, self._executor.vocab_size, count, np.int32)


def _block_tables(lengths: Sequence[int]) -> list[np.ndarray]:
    """Blocks for sequences of these lengths, none shared."""
    tables = []
    first = 0
    for length in lengths:
        count = -(-length // BLOCK_SIZE)
        tables.append(np.arange(first, first + count, dtype=np.int32))
        first += count
    return tables


if __name__ == "__main__":
    serve(QuintetEngine())
