"""A server on a real socket, in the event loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from unittest import mock

from quintet.server.models import Models
from quintet.server.run import Server, serve_async
from quintet.server.settings import Settings


@contextlib.asynccontextmanager
async def serving(engines: dict[str, Any], **settings: Any) -> AsyncIterator[Server]:
    """Serve the engines on a free port until the block ends; the server must then end cleanly."""
    async with serving_models(Models.of(engines), **settings) as server:
        yield server


@contextlib.asynccontextmanager
async def serving_models(models: Models, **settings: Any) -> AsyncIterator[Server]:
    """The same for models that need not be loaded."""
    listening: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(
        serve_async(models, Settings(port=0, **settings), on_listening=listening.set_result)
    )
    await asyncio.wait({listening, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    server = listening.result()
    try:
        yield server
    finally:
        server.stop()
        server.stop()
        await asyncio.wait_for(task, 10)


@contextlib.contextmanager
def serving_in_thread(models: Models, **settings: Any) -> Iterator[str]:
    """The address of a server with an event loop of its own, for clients that block theirs."""

    async def main() -> None:
        stop = asyncio.Event()
        async with serving_models(models, **settings) as server:
            started.set_result((server.url, asyncio.get_running_loop(), stop))
            await stop.wait()

    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    # Signals are for the main thread.
    no_signals = mock.patch.object(Server, "capture_signals", return_value=contextlib.nullcontext())
    with no_signals, ThreadPoolExecutor(1) as threads:
        running = threads.submit(asyncio.run, main())
        wait({started, running}, return_when=FIRST_COMPLETED)
        if running.done():
            running.result()
        url, loop, stop = started.result()
        try:
            yield url
        finally:
            loop.call_soon_threadsafe(stop.set)
            running.result(30)


@contextlib.asynccontextmanager
async def home(root: Path) -> AsyncIterator[None]:
    """Until the block ends, names are looked up in the store below `root`."""
    with mock.patch.dict(os.environ, QUINTET_HOME=str(root)):
        yield


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait until the condition holds."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), timeout_s)


def run(main: Awaitable[Any]) -> Any:
    """Run a test's coroutine, with a deadline far below the suite's."""
    return asyncio.run(asyncio.wait_for(main, 30))
