"""Helper processes: what they may not do, and that others never notice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quintet.errors import CapacityError, ContextLengthError, EngineError
from quintet.sandbox import pool as pool_module
from quintet.sandbox.helper import Helper, Limits
from quintet.sandbox.pool import MAX_WAITING, Pool, Refused

MODULE = "sandbox.helpers"


@pytest.fixture
def new_pool() -> Iterator[Callable[..., Pool]]:
    """Makes pools, which are closed and leave no process behind."""
    pools: list[Pool] = []

    def new(seconds: float = 10.0, mib: int = 64, **options: Any) -> Pool:
        pools.append(Pool(MODULE, "set up", Limits(seconds, mib * 2**20), **options))
        return pools[-1]

    yield new
    for pool in pools:
        pool.close()


def pids(pool: Pool) -> set[int]:
    return {helper.pid for helper in [*pool._idle, *pool._busy]}


def test_tasks_and_answers_cross(new_pool: Callable[..., Pool]):
    """Large ones, strange characters, and what a task prints does not get in between."""
    pool = new_pool()
    for value in (None, [1, 2.5, {"a": "é\ud800\n"}], "x" * 3_000_000):
        assert pool.run(["echo", value]) == ["set up", value]
        assert pool.run(["print", "x" * 100]) == "printed"
    assert len(pids(pool)) == 1


@pytest.mark.parametrize(
    ("task", "reason"),
    [(["spin"], "longer than 0.5 s"), (["sleep", 30], "longer than"), (["grow"], "64 MiB"),
     (["crash"], "crashes"), (["recurse"], "nested too deep"), (["fail"], "ZeroDivisionError")],
)  # fmt: skip
def test_what_fails_is_one_task(new_pool: Callable[..., Pool], task: list[Any], reason: str):
    """The next task is done as if nothing had been, if need be by another process."""
    pool = new_pool(seconds=0.5)
    assert pool.run(["echo", 1])
    with pytest.raises(Refused) as caught:
        pool.run(task)
    assert reason in caught.value.reason
    assert "secret" not in caught.value.reason
    assert pool.run(["echo", 2]) == ["set up", 2]


def test_errors_come_back_as_they_were(new_pool: Callable[..., Pool]):
    """Class, text and attributes of an error raised on purpose."""
    with pytest.raises(ContextLengthError, match="needs 7 tokens") as caught:
        new_pool().run(["refuse"])
    assert (caught.value.num_tokens, caught.value.parameter) == (7, "prompt")


def test_a_helper_has_no_secrets_and_opens_nothing(
    new_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Not the server's environment, no files, no sockets."""
    monkeypatch.setenv("QUINTET_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    pool = new_pool()
    assert "secret" not in pool.run(["environment"]).values()
    path = tmp_path / "file"
    path.write_text("text")
    with socket.create_server(("127.0.0.1", 0)) as server:
        for task in (["open", str(path)], ["open", "/etc/passwd"],
                     ["connect", server.getsockname()[1]]):  # fmt: skip
            with pytest.raises(Refused, match="OSError"):
                pool.run(task)


def test_helpers_are_shared_and_bounded(new_pool: Callable[..., Pool]):
    """Many threads, two processes."""
    pool = new_pool(size=2)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda i: pool.run(["echo", i])[1], range(100)))
    assert answers == list(range(100))
    assert 1 <= len(pids(pool)) <= 2


def test_few_wait_behind_long_work(new_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch):
    """Who comes when some wait already is told to come back, and holds no thread."""
    monkeypatch.setattr(pool_module, "_LONG_S", 0.1)
    pool = new_pool(size=1)
    with ThreadPoolExecutor(1 + MAX_WAITING) as threads:
        running = threads.submit(pool.run, ["sleep", 1.0])
        _until(lambda: bool(pool._busy))
        time.sleep(0.2)
        waiting = [threads.submit(pool.run, ["echo", i]) for i in range(MAX_WAITING)]
        _until(lambda: pool._num_waiting == MAX_WAITING)
        with pytest.raises(CapacityError):
            pool.run(["echo", 9])
        assert running.result() == "slept"
        assert [answer.result()[1] for answer in waiting] == list(range(MAX_WAITING))


def test_closing_ends_all(new_pool: Callable[..., Pool]):
    """Who waits for an answer or for a helper gets an error; no process is left."""
    pool = new_pool(size=1)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(pool.run, ["sleep", 30])
        _until(lambda: bool(pool._busy))
        waiting = threads.submit(pool.run, ["echo", 1])
        _until(lambda: pool._num_waiting == 1)
        (pid,) = pids(pool)
        pool.close()
        for call in (running, waiting):
            with pytest.raises(EngineError, match="closed"):
                call.result()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(EngineError, match="closed"):
        pool.run(["echo", 1])


def test_closing_while_one_starts(new_pool: Callable[..., Pool]):
    """A helper that gets ready too late is not left behind."""
    before = threading.active_count()
    pool = new_pool()
    pool.start()
    pool.close()
    _until(lambda: threading.active_count() == before)
    assert not pids(pool)


def test_a_helper_does_not_outlive_its_client():
    """However the client ends: an idle helper at once, a busy one when its time is up."""
    code = (
        "import os, sys\n"
        "from quintet.sandbox.helper import Helper, Limits\n"
        "h = Helper('sandbox.helpers', None, Limits(1.0, 2**26))\n"
        "print(h.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.returncode == -signal.SIGKILL
    pid = int(result.stdout)
    _until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not _command(pid))


def test_a_module_that_does_not_start_is_named_as_such():
    """Not a hang."""
    with pytest.raises(EngineError, match="did not start"):
        Helper("sandbox.no_such_module", None, Limits())


def _command(pid: int) -> bytes:
    """Empty for a process that has ended, collected or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
