"""Requests that are left to be served in the background, and their results."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from nano_qwen3_serving._jobs import Job
from nano_qwen3_serving._results import Result
from nano_qwen3_serving.exceptions import GenerationError, QueueFullError


class Submitted:
    """
    A queue, the most urgent first, with workers, and the results nobody has fetched yet.

    Args:
        serve: gives the result of a job.
        num_workers: jobs that are served at a time.
        max_queue_size: jobs that wait or run, and results that are kept.
    """

    def __init__(
        self, serve: Callable[[Job], Awaitable[Result]], num_workers: int, max_queue_size: int
    ) -> None:
        self._serve = serve
        self._num_workers = num_workers
        self._max_queue_size = max_queue_size
        self._order = itertools.count()
        self._queue: asyncio.PriorityQueue[tuple[int, int, Job]] | None = None
        self._results: dict[int, Result | Exception | None] = {}
        self._workers: list[asyncio.Task[None]] = []

    @property
    def num_waiting(self) -> int:
        """Jobs that no worker has taken yet."""
        return 0 if self._queue is None else self._queue.qsize()

    def add(self, job: Job) -> None:
        """
        Leave a job to the workers, which the first one starts.

        Raises:
            QueueFullError: there are as many as there may be.
        """
        unfinished = sum(result is None for result in self._results.values())
        limit = self._max_queue_size
        if unfinished >= limit:
            raise QueueFullError(f"the queue holds {limit} requests, {unfinished} are in it")
        # Results nobody has fetched are kept as long as there is room, the newest ones.
        finished = [key for key, result in self._results.items() if result is not None]
        for key in finished[: max(0, len(finished) - limit + 1)]:
            del self._results[key]
        self._results[job.request_id] = None
        if self._queue is None:
            self._queue = asyncio.PriorityQueue()
            self._workers = [
                asyncio.ensure_future(self._work(self._queue)) for _ in range(self._num_workers)
            ]
        self._queue.put_nowait((-job.priority, next(self._order), job))

    def result(self, request_id: int) -> Result | None:
        """A job's result; None while there is none, and for an id that is none.

        Raises: what the job ended with.
        """
        result = self._results.get(request_id)
        if isinstance(result, Exception):
            raise result
        return result

    async def close(self) -> None:
        """End the workers; jobs that are not done have an error as their result."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for request_id, result in self._results.items():
            if result is None:
                self._results[request_id] = GenerationError("the model was shut down")

    async def _work(self, queue: asyncio.PriorityQueue[tuple[int, int, Job]]) -> None:
        while True:
            _, _, job = await queue.get()
            try:
                self._results[job.request_id] = await self._serve(job)
            except Exception as error:  # noqa: BLE001 - it is for whoever asks for the result
                self._results[job.request_id] = error
