"""What happens to everybody else when a worker, or its server, dies."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from engine.fake import make_request
from quintet.config import EngineConfig
from quintet.engine.loading import ModelOptions
from quintet.engine.worker.process import EngineProcess
from quintet.engine.worker.supervisor import Backoff
from quintet.errors import CapacityError, EngineError

from .conftest import DEMO, NewProcess, is_running, occupy, resubmit, wait_until


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Crashes are logged; these are wanted."""
    caplog.set_level(logging.CRITICAL + 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_ends_its_streams_within_a_second(
    new_process: NewProcess, number: signal.Signals
) -> None:
    """Every stream gets an error that names model and signal; soon the model is back."""
    client = new_process()
    request = make_request(20, 30)
    expected = [chunk.token_ids for chunk in client.submit(request)]
    streams = occupy(client)
    started_s = time.monotonic()
    os.kill(client.pid, number)
    for stream in streams:
        with pytest.raises(EngineError, match=rf"demo\.gguf was ended by {number.name}"):
            list(stream)
        assert list(stream) == []
    assert time.monotonic() - started_s < 1
    assert not client.is_closed
    again = resubmit(client, make_request(20, 30))
    assert [chunk.token_ids for chunk in again] == expected
    client.audit()


def test_while_a_worker_restarts_requests_are_refused_with_a_hint(new_process: NewProcess) -> None:
    """CapacityError says when to come back; the stream that comes back in time is served."""
    client = new_process(backoff=Backoff(first_s=0.3))
    assert client.state == "ready"
    os.kill(client.pid, signal.SIGKILL)
    wait_until(lambda: client.state == "restarting")
    with pytest.raises(CapacityError, match="restarted") as caught:
        client.submit(make_request(4))
    assert caught.value.resource == "worker process"
    assert 1 <= (caught.value.retry_after_s or 0) < 30
    with pytest.raises(CapacityError):
        client.audit()
    assert len(list(resubmit(client, make_request(4)))) == 8


def test_totals_go_on_when_a_worker_is_replaced(new_process: NewProcess) -> None:
    """Counters never fall, whoever was lost has failed, and the restart is counted."""
    client = new_process()
    list(client.submit(make_request(4)))
    occupy(client)
    os.kill(client.pid, signal.SIGKILL)
    wait_until(lambda: client.pid is None)
    wait_until(lambda: client.stats().num_failed == 48)
    lost = client.stats()
    assert (lost.num_requests, lost.num_finished, lost.num_running) == (49, 49, 0)
    assert lost.num_generated_tokens >= 8 + 48
    list(resubmit(client, make_request(4)))
    stats = client.stats()
    assert (stats.num_requests, stats.num_finished, stats.num_failed) == (50, 50, 48)
    assert stats.num_generated_tokens == lost.num_generated_tokens + 8
    assert stats.num_restarts == 1


def test_other_models_do_not_notice(new_process: NewProcess) -> None:
    """While one model crashes again and again, another's streams go on, bit for bit."""
    victim, other = new_process(), new_process()
    request = make_request(20, 400)
    expected = [chunk.token_ids for chunk in other.submit(request)]
    over = threading.Event()

    def crash() -> None:
        while not over.is_set():
            pid = victim.pid
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended since
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    crasher = threading.Thread(target=crash)
    crasher.start()
    try:
        for _ in range(3):
            assert [chunk.token_ids for chunk in other.submit(make_request(20, 400))] == expected
    finally:
        over.set()
        crasher.join()
    assert other.stats().num_restarts == 0
    other.audit()


def test_a_crash_loop_ends_in_a_clear_state(new_process: NewProcess) -> None:
    """After so many crashes in a row the model is closed and says why."""
    client = new_process(backoff=Backoff(first_s=0.01, max_crashes=3))
    deadline_s = time.monotonic() + 60
    while not client.is_closed:
        if (pid := client.pid) is not None:
            os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert client.pid is None
    assert client.state == "closed"
    with pytest.raises(EngineError, match="SIGKILL, once too often in a row; it is not restarted"):
        client.submit(make_request(4))


def test_crashes_far_apart_are_no_loop(new_process: NewProcess) -> None:
    """A worker that was ready for long enough starts a new count."""
    client = new_process(backoff=Backoff(first_s=0.01, max_crashes=2, stable_s=0.0))
    for _ in range(3):
        os.kill(client.pid, signal.SIGKILL)
        wait_until(lambda: client.pid is None)
        list(resubmit(client, make_request(4)))
    assert client.stats().num_restarts == 3


NO_DESCRIPTORS = """
import os, resource
from quintet.config import EngineConfig
from quintet.engine.loading import ModelOptions
from quintet.engine.worker.process import EngineProcess
from quintet.errors import EngineError
from quintet.hub.resolve import packaged_models
path = packaged_models()["demo"]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
held = [os.open(os.devnull, os.O_RDONLY)]
while held[-1] < 300:
    held.append(os.open(os.devnull, os.O_RDONLY))
for spare in [*range(1, 32, 3), 80]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (301 + spare, hard))
    client = EngineProcess(path, ModelOptions(), EngineConfig())
    try:
        client.wait_ready()
        print("loaded")
    except EngineError as error:
        print(error)
    client.close()
"""


def test_without_file_descriptors_there_is_an_error(tmp_path: Path) -> None:
    """However few there are, a worker that cannot be started is an error, and leaves no file."""
    result = subprocess.run(
        [sys.executable, "-c", NO_DESCRIPTORS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    *lines, last = result.stdout.splitlines()
    assert set(lines) == {"a worker process cannot be started: Too many open files"}
    assert last == "loaded"
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_has_gone_is_given_up_with_its_error(
    new_process: NewProcess, tmp_path: Path
) -> None:
    """A restart that cannot load is tried again, then the error of loading is the reason."""
    path = tmp_path / "gone.gguf"
    shutil.copy(DEMO, path)
    client = new_process(path, backoff=Backoff(first_s=0.01, max_crashes=2))
    path.unlink()
    os.kill(client.pid, signal.SIGKILL)
    wait_until(lambda: client.is_closed, 60)
    with pytest.raises(EngineError, match=r"gone\.gguf"):
        client.submit(make_request(4))


def test_a_worker_that_dies_while_it_loads_is_the_loaders_error() -> None:
    """The first load is not tried again: whoever asked is told."""
    client = EngineProcess(DEMO, ModelOptions(), EngineConfig())
    wait_until(lambda: client.pid is not None)
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"was ended by SIGKILL$"):
        client.wait_ready()
    assert client.is_closed
    client.close()


def test_signals_for_the_whole_server_leave_workers_alone(new_process: NewProcess) -> None:
    """SIGTERM and SIGINT to a worker change nothing: the server drains first, then says Close."""
    client = new_process()
    streams = [client.submit(make_request(4, 200)) for _ in range(4)]
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(client.pid, number)
    assert [len(list(stream)) for stream in streams] == [200] * 4
    assert os.getpgid(client.pid) != os.getpgid(0)


def test_a_worker_that_hangs_shows_in_the_stats(new_process: NewProcess) -> None:
    """Requests run and the latest step is long ago; when it goes on, so does everything."""
    client = new_process()
    streams = occupy(client)
    os.kill(client.pid, signal.SIGSTOP)
    time.sleep(0.3)
    stats = client.stats()
    assert stats.num_running > 0
    assert 0.2 < time.monotonic() - stats.last_step_at_s < 10
    with pytest.raises(EngineError, match="no answer within"):
        client.audit(timeout_s=0.05)
    os.kill(client.pid, signal.SIGCONT)
    for stream in streams:
        stream.abort()
    for stream in streams:
        list(stream)
    client.audit()


PARENT = """
import sys, time
from quintet import LLM, SamplingParams
llm = LLM("demo", isolated=True)
stream = llm.stream([5], SamplingParams(max_tokens=None, ignore_eos=True))
next(stream)
print(llm._runtime.client.pid, flush=True)
for chunk in stream:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_their_server(tmp_path: Path, number: signal.Signals) -> None:
    """However the server's process ends, its worker ends within two seconds, leaving no file."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as parent:
        try:
            pid = int(parent.stdout.readline())
            assert is_running(pid)
            parent.send_signal(number)
            wait_until(lambda: not is_running(pid), 2)
        finally:
            parent.kill()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_forgets_to_close_exits_cleanly() -> None:
    """The interpreter's exit closes the worker."""
    program = PARENT.replace("for chunk in stream:\n    time.sleep(0.01)\n", "")
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    wait_until(lambda: not is_running(int(result.stdout)), 2)


def test_a_worker_gets_no_secrets(
    new_process: NewProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its environment has neither our keys nor other people's; its sockets' names are gone."""
    monkeypatch.setenv("QUINTET_API_KEY", "secret-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-2")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = new_process()
    environment = Path(f"/proc/{client.pid}/environ").read_bytes()
    assert b"PYTHONPATH=" in environment
    assert b"secret" not in environment
    assert list(tmp_path.iterdir()) == []
    assert "Max core file size        0 " in Path(f"/proc/{client.pid}/limits").read_text()


def test_a_long_temporary_directory_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a socket's path would be too long, the error says what to change."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    client = EngineProcess(DEMO, ModelOptions(), EngineConfig())
    with pytest.raises(EngineError, match="set TMPDIR"):
        client.wait_ready()
    client.close()
    assert list(deep.iterdir()) == []
