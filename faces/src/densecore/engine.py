"""`DenseCore`: a loaded model."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from densecore.config import GenerationConfig
from densecore.exceptions import (
    InferenceError,
    InvalidConfigError,
    TimeoutError,
    load_errors,
    request_errors,
)
from densecore.hub import pretrained_model
from densecore.metrics import metrics_of
from quintet import LLM, AsyncLLM, OutputChunk, RequestOutput
from quintet.models import Pooling

Vectors = npt.NDArray[np.float32]
POOLINGS = ("mean", "cls", "last", "max")


class DenseCore:
    """
    A loaded model.  Safe to use from several threads; their requests share each step.

    Programs of one process that load the same file, through whichever interface, share it.

    Args:
        main_model_path: a GGUF file, or what Quintet knows by this name.
        threads: that compute; 0 for one per physical core.
        hf_repo_id: where the model's tokenizer is from.  Kept as an attribute; the tokenizer
            that is used is the one in the model's file, which its weights were trained with.
        draft_model_path: a smaller model with the same vocabulary, to guess ahead with.
        timeout: seconds that a request may take; None: any number.

    Raises:
        ModelLoadError: there is no such model, it is broken or does not fit.
        InvalidConfigError: an argument out of range.
    """

    def __init__(
        self,
        main_model_path: str,
        threads: int = 0,
        hf_repo_id: str | None = None,
        *,
        draft_model_path: str | None = None,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(threads, int) or threads < 0:
            raise InvalidConfigError(f"threads: expected a number from 0, found {threads!r}")
        if timeout is not None and not timeout > 0:
            raise InvalidConfigError(f"timeout: expected seconds above 0, found {timeout!r}")
        self.hf_repo_id = hf_repo_id
        self._model = main_model_path
        self._timeout_s = timeout
        self._options: dict[str, Any] = {
            "num_threads": threads or None,
            "draft_model": draft_model_path,
            "shared": True,
        }
        self._lock = threading.Lock()
        self._async: AsyncLLM | None = None
        with load_errors():
            self._llm = LLM(main_model_path, **self._options)

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int = 0,
        *,
        draft_repo_id: str | None = None,
        timeout: float | None = None,
    ) -> DenseCore:
        """
        Load a model of the Hugging Face Hub, downloading it if need be.

        Args:
            repo_id: `user/repo`.
            filename: which of its GGUF files; None: one of a usual number format.
            cache_dir: where downloads are kept; None: with Quintet's other models.
            threads, timeout: see the class.
            draft_repo_id: of a model to guess ahead with.

        Raises: as the class; ModelLoadError also where it cannot be downloaded.
        """
        with load_errors():
            model = pretrained_model(repo_id, filename, cache_dir)
            draft = None
            if draft_repo_id is not None:
                draft = pretrained_model(draft_repo_id, None, cache_dir)
        return cls(model, threads, repo_id, draft_model_path=draft, timeout=timeout)

    def generate(
        self,
        prompt: str,
        max_tokens: int = 256,
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 40,
        repetition_penalty: float = 1.1,
        stop_sequences: list[str] | None = None,
        config: GenerationConfig | None = None,
    ) -> str:
        """
        Continue a text.

        Args:
            prompt: its beginning; what spells a control token is that token.
            config: takes the place of all the other parameters, which `GenerationConfig` explains.

        Raises:
            InvalidConfigError: a parameter out of range.
            InferenceError: the prompt does not fit, or the request failed.
            TimeoutError: it took longer than `timeout`.
        """
        chosen = config or GenerationConfig(
            max_tokens, temperature, top_p, top_k, repetition_penalty, stop_sequences
        )
        _check_text(prompt, "prompt")
        with request_errors():
            output = self._llm.generate(prompt, chosen.sampling(), timeout_s=self._timeout_s)[0]
        return _text_of(output)

    def stream(self, prompt: str, **kwargs: Any) -> Iterator[str]:
        """
        Continue a text, token by token.

        Leaving the loop over it ends the request.

        Args, Raises: as `generate`.
        """
        _check_text(prompt, "prompt")
        params = _config(kwargs).sampling()
        return _texts(self._llm.stream(prompt, params, timeout_s=self._timeout_s))

    def stream_async(self, prompt: str, **kwargs: Any) -> AsyncIterator[str]:
        """`stream` for asyncio: the event loop stays free."""
        _check_text(prompt, "prompt")
        params = _config(kwargs).sampling()
        chunks = self._async_llm().stream(prompt, params, timeout_s=self._timeout_s)
        return _async_texts(cast("AsyncGenerator[OutputChunk, None]", chunks))

    def chat(self, messages: Sequence[dict[str, str]], **kwargs: Any) -> str:
        """
        The assistant's next message.

        Args:
            messages: each has a "role" and a "content".  Their text never becomes control tokens.

        Raises: as `generate`, whose parameters it takes.
        """
        params = _config(kwargs).sampling()
        with request_errors():
            output = self._llm.chat(list(messages), params, timeout_s=self._timeout_s)
        return _text_of(output)

    def embed(self, text: str, pooling: str = "mean", normalize: bool = True) -> Vectors:
        """
        A text's vector: [embedding_dim] float32.

        Args:
            pooling: what makes the vectors of its tokens one: "mean", "cls" (the first), "last" or
                "max".
            normalize: to length 1.

        Raises:
            InvalidConfigError: another pooling.
            InferenceError: the text does not fit, or the request failed.
        """
        _check_text(text, "text")
        vector: Vectors = self.embed_batch([text], pooling, normalize)[0]
        return vector

    def embed_batch(
        self, texts: Sequence[str], pooling: str = "mean", normalize: bool = True
    ) -> Vectors:
        """Vectors of texts: [batch_size, embedding_dim] float32; see `embed`."""
        if pooling not in POOLINGS:
            raise InvalidConfigError(
                f"pooling: expected one of {', '.join(POOLINGS)}, found {pooling!r}"
            )
        if isinstance(texts, str):
            raise InvalidConfigError("texts: expected a list of texts, found a text")
        for text in texts:
            _check_text(text, "texts")
        spec = self._llm.limits.embedding
        if not texts and spec is not None:
            return np.empty((0, spec.hidden_size), np.float32)
        with request_errors():
            output = self._llm.embed(
                list(texts), pooling=cast(Pooling, pooling), normalize=normalize
            )
        return output.embeddings

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens around it."""
        _check_text(text, "text")
        with request_errors():
            return self._llm.tokenizer.encode(text, add_special=False)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids; one that the model does not have becomes U+FFFD.

        Raises:
            InvalidConfigError: below 0, or no number.
        """
        tokenizer = self._llm.tokenizer
        parts: list[str] = []
        known: list[int] = []
        for token_id in token_ids:
            if not isinstance(token_id, SupportsIndex) or token_id.__index__() < 0:
                raise InvalidConfigError(
                    f"token_ids: expected numbers from 0, found {token_id!r:.40}"
                )
            if token_id.__index__() < tokenizer.vocab_size:
                known.append(token_id.__index__())
            else:
                parts += [tokenizer.decode(known), "\ufffd"]
                known = []
        return "".join([*parts, tokenizer.decode(known)])

    def get_metrics(self) -> dict[str, Any]:
        """The engine's counters: of all programs of this process that share the model.

        Rates are of some ten seconds, times are in milliseconds; see `metrics.metrics_of`.
        """
        return dict(metrics_of(self._llm.stats()))

    def close(self) -> None:
        """End what is running and let go of the model.  Idempotent."""
        with self._lock:
            twin, self._async = self._async, None
        if twin is not None:
            # In a thread of its own: here an event loop may be running.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(asyncio.run, twin.close()).result()
        self._llm.close()

    def __enter__(self) -> DenseCore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _async_llm(self) -> AsyncLLM:
        """The same model for asyncio."""
        with self._lock:
            if self._llm.is_closed:
                raise InferenceError("the model is closed")
            if self._async is None:
                self._async = AsyncLLM(self._model, **self._options)
            return self._async


def _config(kwargs: dict[str, Any]) -> GenerationConfig:
    """What `generate` takes, given as keywords."""
    config = kwargs.pop("config", None)
    chosen = GenerationConfig(**kwargs)
    return config or chosen


def _check_text(text: object, name: str) -> None:
    if not isinstance(text, str):
        raise InvalidConfigError(f"{name}: expected text, found {type(text).__name__}")


def _text_of(output: RequestOutput) -> str:
    _check_end(output.finish_reason)
    return output.text


def _texts(chunks: Iterator[OutputChunk]) -> Iterator[str]:
    with request_errors():
        for chunk in chunks:
            if chunk.text:
                yield chunk.text
            _check_end(chunk.finish_reason)


async def _async_texts(chunks: AsyncGenerator[OutputChunk, None]) -> AsyncIterator[str]:
    # Closed with this one, not when the garbage collector finds it: the request goes on until then.
    async with aclosing(chunks) as closing:
        with request_errors():
            async for chunk in closing:
                if chunk.text:
                    yield chunk.text
                _check_end(chunk.finish_reason)


def _check_end(finish_reason: str | None) -> None:
    if finish_reason == "timeout":
        raise TimeoutError("the request took too long; what it had by then is lost")
    if finish_reason == "abort":
        raise InferenceError("the model was closed")
