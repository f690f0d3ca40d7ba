"""llama.cpp as the benchmark's engine, through llama-cpp-python's binding of its C API.

Settings that matter: flash attention on, its own KV buffer for each of several sequences (one
buffer for all would make each attend over everybody's tokens), memory-mapped weights, its weight
repacking on (all but flash attention are its defaults).  Tokens are taken by NumPy's argmax over
the logits, as from the other engine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from peers.protocol import CHECK_TOKEN, NUM_CHECK_LOGITS, UBATCH, Measured, Stopwatch, serve


class Context:
    """A llama.cpp context with its batch.

    Raises:
        RuntimeError: it could not be made, or a step failed.
    """

    def __init__(self, model: Any, num_threads: int, num_sequences: int, sequence_len: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = num_sequences * _padded(sequence_len)
        params.n_batch = params.n_ubatch = UBATCH
        params.n_seq_max = num_sequences
        params.n_threads = params.n_threads_batch = num_threads
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.kv_unified = False
        params.no_perf = True
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise RuntimeError("llama.cpp could not make a context")
        self._memory = llama_cpp.llama_get_memory(self._context)
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._batch = llama_cpp.llama_batch_init(UBATCH, 0, 1)
        self._tokens = np.ctypeslib.as_array(self._batch.token, (UBATCH,))
        self._positions = np.ctypeslib.as_array(self._batch.pos, (UBATCH,))
        self._num_sequences = np.ctypeslib.as_array(self._batch.n_seq_id, (UBATCH,))
        self._wants_logits = np.ctypeslib.as_array(self._batch.logits, (UBATCH,))
        self._num_sequences[:] = 1
        self._rows_of: tuple[tuple[int, ...], int] | None = None
        self.lengths = [0] * num_sequences

    def truncate(self, sequence: int, length: int) -> None:
        """Forget a sequence's tokens from `length` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1)
        self.lengths[sequence] = length

    def fill(self, sequence: int, tokens: np.ndarray) -> None:
        """Append tokens in chunks, and compute the last one's logits."""
        for start in range(0, len(tokens), UBATCH):
            chunk = tokens[start : start + UBATCH]
            self.extend([sequence], [chunk], logits=start + UBATCH >= len(tokens))

    def extend(
        self, sequences: Sequence[int], tokens: Sequence[np.ndarray], *, logits: bool = True
    ) -> np.ndarray:
        """One step: as many new tokens for each sequence; logits [sequences, vocab_size]."""
        count = len(tokens[0])
        num_tokens = count * len(sequences)
        starts = np.array([self.lengths[sequence] for sequence in sequences], np.int32)
        self._batch.n_tokens = num_tokens
        self._tokens[:num_tokens] = np.concatenate(tokens)
        positions = starts[:, None] + np.arange(count, dtype=np.int32)
        self._positions[:num_tokens] = positions.ravel()
        self._wants_logits[:num_tokens] = 0
        if logits:
            self._wants_logits[count - 1 : num_tokens : count] = 1
        self._assign_rows(tuple(sequences), count)
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        for sequence in sequences:
            self.lengths[sequence] += count
        if not logits:
            llama_cpp.llama_synchronize(self._context)
            return np.empty((0, self.vocab_size), np.float32)
        pointer = llama_cpp.llama_get_logits(self._context)  # waits for the computation
        return np.ctypeslib.as_array(pointer, (len(sequences), self.vocab_size))

    def _assign_rows(self, sequences: tuple[int, ...], count: int) -> None:
        """Say which sequence each row belongs to; slow in Python, so only when it changes."""
        if self._rows_of == (sequences, count):
            return
        for i, sequence in enumerate(sequences):
            for row in range(i * count, (i + 1) * count):
                self._batch.seq_id[row][0] = sequence
        self._rows_of = (sequences, count)


class LlamaCppEngine:
    """See `peers.protocol.Engine`."""

    def load(
        self, path: str, num_threads: int, context: int, num_streams: int, stream_len: int
    ) -> dict[str, Any]:
        self._streams_size = (num_threads, num_streams, stream_len)
        self._streams: Context | None = None
        self._random = np.random.default_rng(0)
        with Stopwatch() as total:
            with Stopwatch() as loading:
                params = llama_cpp.llama_model_default_params()
                self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
                if not self._model:
                    raise RuntimeError("llama.cpp could not load the model")
                self._single = Context(self._model, num_threads, 1, context)
            logits = self._single.extend([0], [np.array([CHECK_TOKEN])])
        return total.measured | {
            "load_s": loading.measured["seconds"],
            "logits": logits[0, :NUM_CHECK_LOGITS].tolist(),
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "kernels": llama_cpp.llama_print_system_info().decode().strip(" |"),
        }

    def prefill(self, num_tokens: int) -> Measured:
        self._single.truncate(0, 0)
        tokens = self._draw(num_tokens)
        with Stopwatch() as watch:
            self._single.fill(0, tokens)
        return watch.measured

    def decode(self, depth: int, num_tokens: int) -> Measured:
        length = self._single.lengths[0]
        if length < depth:
            self._single.fill(0, self._draw(depth - length))
        self._single.truncate(0, depth)
        return self._decode(self._single, [0], num_tokens)

    def streams(self, num_streams: int, prompt_len: int, num_tokens: int) -> Measured:
        if self._streams is None:
            self._streams = Context(self._model, *self._streams_size)
        context = self._streams
        for sequence in range(num_streams):
            if context.lengths[sequence] < prompt_len:
                context.truncate(sequence, 0)
                context.fill(sequence, self._draw(prompt_len))
            context.truncate(sequence, prompt_len)
        return self._decode(context, range(num_streams), num_tokens)

    def load_api(self, path: str, num_threads: int, context: int) -> None:
        self._llama = llama_cpp.Llama(
            path,
            n_ctx=context,
            n_batch=UBATCH,
            n_threads=num_threads,
            n_threads_batch=num_threads,
            flash_attn=True,
            verbose=False,
        )

    def generate(self, prompt_len: int, num_tokens: int, seed: int) -> Measured:
        random = np.random.default_rng(seed)
        prompt = random.integers(0, self._llama.n_vocab(), prompt_len).tolist()
        tokens = self._llama.generate(prompt, temp=0.0)
        next(tokens)
        with Stopwatch() as watch:
            for _ in range(num_tokens - 1):
                next(tokens)
        return watch.measured

    def _decode(self, context: Context, sequences: Sequence[int], num_tokens: int) -> Measured:
        tokens = self._draw(len(sequences)).reshape(-1, 1)
        with Stopwatch() as watch:
            for _ in range(num_tokens):
                logits = context.extend(sequences, tokens)
                tokens = np.argmax(logits, axis=1).reshape(-1, 1)
        return watch.measured

    def _draw(self, count: int) -> np.ndarray:
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        return self._random.integers(0, size, count, np.int32)


def _padded(sequence_len: int) -> int:
    return -(-sequence_len // 256) * 256


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Errors only: a line per tensor and context would fill the log."""
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        print(text.decode(errors="replace"), end="", flush=True)


if __name__ == "__main__":
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    serve(LlamaCppEngine())
