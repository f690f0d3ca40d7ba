"""The engine: one model, and the sessions that use it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from woolly.config import EngineConfig
from woolly.errors import ModelNotLoaded, translated

if TYPE_CHECKING:
    from quintet.async_llm import AsyncLLM
    from woolly.sampler import Sampler
    from woolly.session import Session

T = TypeVar("T")
_log = logging.getLogger("woolly")


@dataclass(frozen=True)
class EngineStats:
    """
    An engine's counters.

    Args:
        model: the name of the one that is loaded.
        active_sessions: sessions that are in use.
        total_requests: generations begun.
        tokens_generated, prompt_tokens: in all of them; of the latter, cached_tokens had been
            computed before.
        tokens_per_second: lately.
        memory_used: bytes of this process.
        cache_usage: the share of the cache in use, 0 to 1.
        uptime: seconds since the model was loaded.
    """

    model: str | None = None
    active_sessions: int = 0
    total_requests: int = 0
    tokens_generated: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens_per_second: float = 0.0
    memory_used: int = 0
    cache_usage: float = 0.0
    uptime: float = 0.0


class Engine:
    """
    Manages a model and its sessions; a context manager.

    Args:
        config: None: the default one.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = config or EngineConfig()
        self._name: str | None = None
        self._llm: AsyncLLM | None = None
        self._loaded_s = 0.0
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    def load_model(self, path: str | os.PathLike[str]) -> None:
        """
        Load a model in the place of the one there is.

        Args:
            path: of a GGUF file, or a name that Quintet knows.

        Raises:
            ModelNotFound: there is none.
            ModelLoadFailed: it is broken, or cannot be run.
            OutOfMemory: it does not fit.
        """
        from quintet.async_llm import AsyncLLM
        from quintet.hub.resolve import resolve

        config = self.config
        with translated():
            found = resolve(path)
            llm = AsyncLLM(
                path,
                num_threads=config.num_threads,
                use_mmap=config.mmap_enabled,
                max_model_len=context_for(found, config.max_sequence_length),
                max_num_seqs=config.max_batch_size,
                kv_cache_bytes=config.cache_config.size,
                enable_prefix_cache=config.cache_config.enabled,
                shared=True,
            )
            if config.enable_gpu:
                _log.debug("there is no GPU support; the CPU computes")
            if self._llm is not None:
                self.unload_model()
            run_blocking(llm.__aenter__)
        self._llm = llm
        self._name = Path(os.fspath(path)).name.removesuffix(".gguf")
        self._loaded_s = time.monotonic()

    def unload_model(self) -> None:
        """
        Let the model go; what its sessions are generating ends with an error.

        Raises:
            ModelNotLoaded: there is none.
        """
        llm, self._llm, self._name = self._llm, None, None
        if llm is None:
            raise ModelNotLoaded("No model is currently loaded")
        run_blocking(llm.close)

    def current_model_name(self) -> str | None:
        """The name of the model that is loaded."""
        return self._name

    def create_session(self, sampler: Sampler | None = None) -> Session:
        """
        A session of the model that is loaded.

        Args:
            sampler: picks its tokens; None: the engine does.

        Raises:
            ModelNotLoaded: there is none.
        """
        from woolly.session import Session

        if self._llm is None:
            raise ModelNotLoaded("No model is currently loaded")
        session = Session(self._llm, sampler, self.config.max_sequence_length)
        self._sessions.add(session)
        return session

    def stats(self) -> EngineStats:
        """The counters; zeros while no model is loaded."""
        llm = self._llm
        if llm is None:
            return EngineStats()
        stats = llm.stats()
        return EngineStats(
            model=self._name,
            active_sessions=sum(1 for session in self._sessions if session.is_of(llm)),
            total_requests=stats.num_requests,
            tokens_generated=stats.num_generated_tokens,
            prompt_tokens=stats.num_prompt_tokens,
            cached_tokens=stats.num_cached_tokens,
            tokens_per_second=stats.tokens_per_second,
            memory_used=stats.resident_bytes,
            cache_usage=stats.kv_usage,
            uptime=time.monotonic() - self._loaded_s,
        )

    def close(self) -> None:
        """Let the model go, if there is one.  Idempotent."""
        if self._llm is not None:
            self.unload_model()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def context_for(path: Path, max_sequence_length: int) -> int | None:
    """Tokens of prompt and answer; None for the model's own context where that is no more."""
    from quintet.tools.inspect import inspect_model

    metadata = inspect_model(path).metadata
    architecture = metadata.get("general.architecture")
    trained = metadata.get(f"{architecture}.context_length")
    if trained is None:
        trained = metadata.get("max_position_embeddings")
    fits = isinstance(trained, int) and trained <= max_sequence_length
    return None if fits else max_sequence_length


def run_blocking(work: Callable[[], Awaitable[T]]) -> T:
    """Await in a thread of its own: the caller's may have an event loop that runs."""
    results: list[T] = []
    errors: list[BaseException] = []

    async def main() -> None:
        results.append(await work())

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, name="woolly")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
