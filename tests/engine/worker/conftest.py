"""Worker processes for tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.fake import make_request
from quintet.config import EngineConfig
from quintet.engine.loading import ModelOptions
from quintet.engine.request import Request
from quintet.engine.stream import RequestStream
from quintet.engine.worker.process import EngineProcess
from quintet.engine.worker.supervisor import Backoff
from quintet.errors import CapacityError
from quintet.hub.resolve import packaged_models

DEMO = packaged_models()["demo"]
QUICK = Backoff(first_s=0.05)

NewProcess = Callable[..., EngineProcess]


@pytest.fixture(scope="module")
def client() -> Iterator[EngineProcess]:
    """A worker with the demo model, for tests that leave it as it was; audited at the end."""
    with_demo = start()
    yield with_demo
    with_demo.audit()
    assert with_demo.stats().num_used_blocks == 0
    with_demo.close()


@pytest.fixture
def new_process() -> Iterator[NewProcess]:
    """Starts workers of a test's own, and closes them."""
    started: list[EngineProcess] = []

    def new(path: Path = DEMO, **options: Any) -> EngineProcess:
        started.append(start(path, **options))
        return started[-1]

    yield new
    for process in started:
        process.close()


def start(path: Path = DEMO, *, backoff: Backoff = QUICK, **config: Any) -> EngineProcess:
    """A worker that is ready."""
    process = EngineProcess(
        path, ModelOptions(num_threads=1), EngineConfig(seed=0, **config), backoff=backoff
    )
    try:
        process.wait_ready()
    except BaseException:
        process.close()
        raise
    return process


def endless() -> Request:
    """A request that goes on to the end of the context."""
    return make_request(4, None)


def occupy(client: EngineProcess) -> list[RequestStream]:
    """Streams that run for many seconds; the first chunk of each has been read."""
    streams = [client.submit(endless()) for _ in range(48)]
    for stream in streams:
        next(stream)
    return streams


def resubmit(client: EngineProcess, request: Request, timeout_s: float = 30.0) -> RequestStream:
    """Submit as soon as the worker is back."""
    streams: list[RequestStream] = []

    def submit() -> bool:
        with contextlib.suppress(CapacityError):
            streams.append(client.submit(request))
        return bool(streams)

    wait_until(submit, timeout_s)
    return streams[0]


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.005)


def rss_bytes(pid: int | str = "self") -> int:
    """Memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
