"""A text through a model, chunk by chunk: what perplexity, comparison and importances share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from quintet.backends import load_executor
from quintet.backends.base import BLOCK_SIZE, Executor, Observer, StepInput
from quintet.backends.cpu import CPUExecutor
from quintet.backends.load import resolve_kv_dtype
from quintet.engine.loading import load_tokenizer
from quintet.errors import ContextLengthError, RequestError, UnsupportedModelError
from quintet.formats.model_file import open_model_file
from quintet.models import load_model
from quintet.tools.likelihood import Logits

DEFAULT_CONTEXT = 512
_MAX_STEP_TOKENS = 128  # bounds the logits that exist at a time: rows of a whole vocabulary
_MAX_OBSERVED_TOKENS = 512  # without logits

Backend = Literal["auto", "cpu", "reference"]
Dtype = Literal["auto", "float32", "bfloat16"]


class TextPass:
    """
    A model and its tokenizer, ready to read chunks of a text; a context manager.

    Args:
        path: a GGUF file or a Hugging Face directory.
        context: tokens of a chunk.
        backend: see `load_executor`; with `observed` it is the native one.
        dtype: what is computed from: "auto" is how the engine would run the file; "float32" are
            its weights exactly, without the rounding of activations that goes with blocks.
        num_threads: None: one per physical core.
        observed: by name, the weights whose inputs `observe` shows.

    Raises:
        ModelNotFoundError, ModelFormatError, UnsupportedModelError: it cannot be read, or writes
            no text.
        ContextLengthError: `context` is beyond the model's own.
        RequestError: `context` below 8.
        MemoryError: it does not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        context: int = DEFAULT_CONTEXT,
        backend: Backend = "auto",
        dtype: Dtype = "auto",
        num_threads: int | None = None,
        observed: Callable[[str], bool] | None = None,
    ) -> None:
        path = Path(path)
        if context < 8:
            raise RequestError(f"expected at least 8 tokens, found {context}", parameter="context")
        self.path = path
        self.context = context
        self.tokenizer = load_tokenizer(path)
        with open_model_file(path) as source:
            model = load_model(source)
            if model.head != "logits":
                raise UnsupportedModelError("model that writes no text", path.name)
            if context > model.config.context_length:
                raise ContextLengthError(context, model.config.context_length, parameter="context")
            num_blocks = -(-context // BLOCK_SIZE)
            self._executor: Executor
            self._observed: CPUExecutor | None = None
            #: Of the tensors the program reads as they are in the file.
            self.shapes = {
                name: info.shape
                for name, info in model.weights.tensors.items()
                if source.tensors.get(name, info).shape == info.shape
            }
            if observed is not None:
                max_tokens = min(context, _MAX_OBSERVED_TOKENS)
                self._executor = self._observed = CPUExecutor(
                    model,
                    num_blocks=num_blocks,
                    max_num_batched_tokens=max_tokens,
                    max_logits_rows=max_tokens,
                    weight_dtype=dtype,
                    kv_dtype=resolve_kv_dtype(dtype, "auto"),
                    num_threads=num_threads,
                    observed=observed,
                )
            else:
                self._executor = load_executor(
                    model,
                    num_blocks=num_blocks,
                    max_num_batched_tokens=_MAX_STEP_TOKENS,
                    max_logits_rows=_MAX_STEP_TOKENS,
                    backend=backend,
                    weight_dtype=dtype,
                    num_threads=num_threads,
                )

    def chunks(self, text: str) -> list[list[int]]:
        """
        The text's tokens in chunks of `context`; a shorter rest is left out.  Where the model
        wants a token before every text, each chunk begins with it.

        Raises:
            RequestError: the text is shorter than a chunk.
        """
        bos_id = self.tokenizer.token_to_id(self.tokenizer.bos_token)
        prefix = [each for each in self.tokenizer.encode("")[:1] if each == bos_id]
        tokens = self.tokenizer.encode(text, add_special=False)
        size = self.context - len(prefix)
        if len(tokens) < size:
            raise RequestError(
                f"expected a text of at least {size} tokens, found {len(tokens)}; a smaller "
                "context takes shorter texts",
                parameter="text",
            )
        return [
            prefix + tokens[start : start + size]
            for start in range(0, len(tokens) - size + 1, size)
        ]

    def logits(self, chunk: list[int], first: int = 0) -> Iterator[tuple[int, Logits]]:
        """
        Logits over a chunk, some rows at a time.

        Args:
            chunk: token ids, at most `context`.
            first: the first position whose logits are wanted.

        Yields:
            (position, [n, vocab_size] float32): rows from that position on, the caller's until
            the next.
        """
        for step in self._steps(chunk, first):
            rows = self._executor.run(step)
            if len(rows):
                yield max(int(step.positions[0]), first), rows

    def observe(self, chunk: list[int], observer: Observer) -> None:
        """
        Show what the observed weights are given over a chunk, up to the head, which is not
        computed: see `ObservedExecutor.run_observed`.

        Args:
            chunk: token ids, at most `context`.
            observer: called for every step of some tokens; a last norm sees them all.

        Raises:
            ValueError: there is nothing observed.
        """
        if self._observed is None:
            raise ValueError("expected a pass with `observed`")
        for step in self._steps(chunk):
            self._observed.run_observed(step, observer)

    def _steps(self, chunk: list[int], first: int = 0) -> Iterator[StepInput]:
        """The chunk in steps, each of as many tokens as the executor takes."""
        num_blocks = -(-len(chunk) // BLOCK_SIZE)
        table = np.arange(num_blocks, dtype=np.int32)[np.newaxis]
        size = self._executor.max_num_batched_tokens
        for begin in range(0, len(chunk), size):
            end = min(begin + size, len(chunk))
            positions = np.arange(begin, end, dtype=np.int32)
            yield StepInput(
                token_ids=np.array(chunk[begin:end], np.int32),
                positions=positions,
                cu_seqlens=np.array([0, end - begin], np.int32),
                slot_mapping=positions,  # its blocks are 0, 1, ... in order
                block_tables=table,
                seq_lens=np.array([end], np.int32),
                logits_rows=np.flatnonzero(positions >= first).astype(np.int32),
            )

    def close(self) -> None:
        """Free the model."""
        self._executor.close()

    def __enter__(self) -> TextPass:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
