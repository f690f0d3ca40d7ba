"""An engine that answers through callbacks, all from one thread of its own.

That thread runs an event loop.  Requests come in from any thread, each becomes a task of the loop,
and so do the steps that end it; what is handed to the callbacks is therefore in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from densecore.config import GenerationConfig
from quintet import AsyncLLM, CapacityError, EngineError, OutputChunk, UnsupportedModelError
from quintet.engine.request import Request

if TYPE_CHECKING:
    from densecore.engine import Vectors
    from quintet.engine.stats import EngineStats

OnText = Callable[[str, bool], None]
OnVector = Callable[["Vectors | None"], None]
logger = logging.getLogger("densecore")
THREAD_NAME = "densecore-cb"
_MAX_ID = 2**31 - 1  # of a C int


@dataclass(eq=False, slots=True)
class _Job:
    """A request on its way; of the loop's thread, but for `is_cancelled`."""

    end: Callable[[], None]  # hands out what stands for the rest of an answer
    is_cancelled: bool = False
    has_ended: bool = False
    task: asyncio.Task[None] | None = None


class CallbackEngine:
    """
    A loaded model.

    Args:
        model: a name or path.
        num_threads: that compute; None for one per physical core.
        cpus: where they do, and what they allocate lies; None: anywhere.

    Raises:
        QuintetError: it cannot be loaded.
    """

    def __init__(
        self, model: str, num_threads: int | None = None, cpus: frozenset[int] | None = None
    ) -> None:
        # One that is bound to CPUs is nobody else's.
        self._llm = AsyncLLM(model, num_threads=num_threads, shared=cpus is None)
        self._cpus = cpus
        self._lock = threading.Lock()
        # Under the lock:
        self._jobs: dict[int, _Job] = {}
        self._last_id = 0
        self._is_closed = False
        self._num_refused = 0
        loaded: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(loaded,), name=THREAD_NAME, daemon=True
        )
        self._thread.start()
        loaded.result()

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self._llm.limits.max_model_len

    @property
    def num_refused(self) -> int:
        """Requests refused because there were too many."""
        return self._num_refused

    def stats(self) -> EngineStats:
        """The engine's counters."""
        return self._llm.stats()

    def submit(self, prompt: str | Sequence[int], max_tokens: int, on_text: OnText) -> int:
        """
        Continue a text or tokens.

        Args:
            on_text: gets pieces of the answer, and True with the last, which may be empty.

        Returns:
            The request's id.

        Raises:
            RequestError: it can never be served.
            UnsupportedModelError: the model does not generate.
            CapacityError: there are as many requests as the engine holds.
            EngineError: it is closed.
        """
        limits = self._llm.limits
        if not limits.can_generate:
            raise UnsupportedModelError("request", "generate", ["embed"])
        params = GenerationConfig(max_tokens=max_tokens).sampling()
        if isinstance(prompt, str):
            prompt = self._llm.tokenizer.encode(prompt, add_special=True, parse_special=True)
        ids = list(prompt)
        # What can be known is said now, not in a callback.
        limits.check(Request("", tuple(ids), params))

        async def answer(job: _Job) -> None:
            chunks = cast("AsyncGenerator[OutputChunk, None]", self._llm.stream(ids, params))
            async with aclosing(chunks):
                async for chunk in chunks:
                    if chunk.is_last:
                        self._forget(job)
                    if chunk.text or chunk.is_last:
                        on_text(chunk.text, chunk.is_last)

        return self._add(_Job(lambda: on_text("", True)), answer)

    def embed(self, text: str, on_vector: OnVector) -> int:
        """
        A text's vector.

        Args:
            on_vector: gets it, [dimensions] float32, or None if the request fails.

        Raises: as `submit`.
        """
        if self._llm.limits.embedding is None:
            raise UnsupportedModelError("request", "embed", ["generate"])

        async def answer(job: _Job) -> None:
            vector = (await self._llm.embed(text, pooling="mean")).embeddings[0]
            self._forget(job)
            on_vector(vector)

        return self._add(_Job(lambda: on_vector(None)), answer)

    def cancel(self, request_id: int) -> bool:
        """End a request; whether there was one to end.  Its last callback follows."""
        with self._lock:
            job = self._jobs.get(request_id)
            if job is None or job.is_cancelled:
                return False
            job.is_cancelled = True
            self._loop.call_soon_threadsafe(_stop, job)
            return True

    def close(self) -> None:
        """Cancel what is running and free the model.  Idempotent.

        Called by a callback it returns at once, and the engine ends after that.
        """
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._closing.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _add(self, job: _Job, answer: Callable[[_Job], Coroutine[Any, Any, None]]) -> int:
        with self._lock:
            if self._is_closed:
                raise EngineError("the engine was closed")
            if len(self._jobs) >= self._llm.limits.max_num_requests:
                self._num_refused += 1
                raise CapacityError(
                    f"the engine holds {len(self._jobs)} requests", resource="request queue"
                )
            request_id = self._last_id % _MAX_ID + 1
            while request_id in self._jobs:
                request_id = request_id % _MAX_ID + 1
            self._last_id = request_id
            self._jobs[request_id] = job
            # Under the lock, so that no request comes after the one to close.
            self._loop.call_soon_threadsafe(self._start, job, answer)
            return request_id

    def _start(self, job: _Job, answer: Callable[[_Job], Coroutine[Any, Any, None]]) -> None:
        job.task = asyncio.ensure_future(answer(job))
        job.task.add_done_callback(lambda task: self._end(job, task))
        if job.is_cancelled:
            job.task.cancel()

    def _end(self, job: _Job, task: asyncio.Task[None]) -> None:
        """Whatever became of the task, its request gets its last callback."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not job.is_cancelled:
            logger.warning("a request failed: %s", error)
        if not job.has_ended:
            self._forget(job)
            job.end()

    def _forget(self, job: _Job) -> None:
        """Before the last callback, which may ask what there is."""
        job.has_ended = True
        with self._lock:
            for request_id, each in self._jobs.items():
                if each is job:
                    del self._jobs[request_id]
                    break

    def _run(self, loaded: Future[None]) -> None:
        try:
            if self._cpus is not None:
                # Of this thread, and thereby of those it starts: the engine's.
                os.sched_setaffinity(0, self._cpus)
            asyncio.run(self._serve(loaded))
        except BaseException as error:
            if loaded.done():
                raise
            loaded.set_exception(error)

    async def _serve(self, loaded: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        async with self._llm:
            loaded.set_result(None)
            await self._closing.wait()
            with self._lock:
                jobs = list(self._jobs.values())
            for job in jobs:
                job.is_cancelled = True
                _stop(job)
            tasks = [job.task for job in jobs if job.task is not None]
            if tasks:
                await asyncio.wait(tasks)


def _stop(job: _Job) -> None:
    if job.task is not None:
        job.task.cancel()
