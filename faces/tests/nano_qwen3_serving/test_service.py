"""The HTTP service: where its options come from, and its processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nano_qwen3_serving.exceptions import InvalidParametersError
from nano_qwen3_serving.service.options import ServiceOptions, read_options
from nano_qwen3_serving.service.server import served_name
from nano_qwen3_serving.service.start import main

SCRIPT = Path(__file__).parents[2] / "tools" / "start_service.py"


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path):
    """MODEL_NAME, PORT, WORKERS ... and config.yaml's model, memory and server."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {name: a, device: cpu}\nmemory: {num_blocks: 1}\n"
        "server: {port: 1, workers: 3, host: '::1'}\n"
    )
    environment = {"PORT": "2", "MODEL_NAME": "b", "LOG_LEVEL": "error", "RELOAD": ""}
    arguments = ["--model-name", "c", "--config", str(path)]
    options, read = read_options(arguments, environment)
    assert options == ServiceOptions(
        model_name="c",
        device="cpu",
        num_blocks=1,
        port=2,
        workers=3,
        host="::1",
        log_level="error",
    )
    assert read == path
    assert read_options(["--model", "c"], {})[0].model_name == "c"


def test_config_yaml_is_found_where_the_service_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without it there are the defaults; --reload means one worker."""
    monkeypatch.chdir(tmp_path)
    assert read_options([], {}) == (ServiceOptions(), None)
    (tmp_path / "config.yaml").write_text("server:\n  workers: 4\n")
    assert read_options([], {})[0].workers == 4
    assert read_options(["--reload"], {})[0].workers == 1
    assert read_options([], {"RELOAD": "true"})[0].reload


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("server: {port: '1'}", "server.port"),
        ("server: {port: true}", "server.port"),
        ("server: {prot: 1}", "server.prot"),
        ("servers: {}", "servers"),
        ("model: [a]", "model"),
        ("a: b: c", "YAML"),
        ("!!python/object/apply:os.getcwd []", "YAML"),
        ("server: {port: 70000}", "port"),
        ("server: {log_level: loud}", "log_level"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, where: str):
    """Said with the key."""
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(InvalidParametersError, match=re.escape(where)):
        read_options(["--config", str(path)], {})


@pytest.mark.parametrize("environment", [{"PORT": "x"}, {"WORKERS": "0"}, {"RELOAD": "perhaps"}])
def test_a_wrong_environment_is_refused(environment: dict[str, str]):
    """Said with the variable."""
    with pytest.raises(InvalidParametersError, match=f"(?i){next(iter(environment))}"):
        read_options([], environment)


def test_models_have_short_names_over_http():
    """As in the reference's examples."""
    assert served_name("Qwen/Qwen3-0.6B") == "qwen3-0.6b"
    assert served_name("/models/My.gguf") == "my"


@contextlib.contextmanager
def service(*arguments: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running service and its address; it must end cleanly."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--port", "0", "--device", "cpu", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if " at http" in line)
        yield process, line.split(" at ")[1].strip()
    except BaseException:
        process.kill()
        raise
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, process.stderr.read()
    process.stderr.close()


def ask(url: str) -> dict:
    """An answer, as soon as there is one: a worker that has just been started loads the model."""
    body = {"model": "Qwen/Qwen3-0.6B", "prompt": "Hello", "max_tokens": 3, "temperature": 0}
    return httpx.post(f"{url}/v1/completions", json=body, timeout=30).json()


def children(pid: int) -> list[int]:
    """Of a process, on Linux."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_workers_serve_one_port_and_are_replaced(tmp_path: Path):
    """start_service.py --workers 2: one that dies is replaced; the port stays."""
    with service("--workers", "2", "--log-level", "error", folder=tmp_path) as (process, url):
        assert ask(url)["choices"][0]["text"]
        first = children(process.pid)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        wait_for(lambda: len(now := children(process.pid)) == 2 and first[0] not in now)
        assert ask(url)["choices"][0]["text"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_reload_starts_again_when_a_file_changes(tmp_path: Path):
    """start_service.py --reload, by the configuration: the new one holds."""
    config = tmp_path / "config.yaml"
    config.write_text("memory:\n  max_seq_length: 64\n")
    with service("--reload", folder=tmp_path) as (process, url):
        assert ask(url)["choices"][0]["text"]
        (first,) = children(process.pid)
        config.write_text("memory:\n  max_seq_length: 3\n")
        wait_for(lambda: first not in (now := children(process.pid)) and len(now) == 1)
        assert ask(url)["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--port=0", "--model=no/such", "--workers=2"], "no/such"),
        (["--port=70000"], "port"),
        (["--config=no-such.yaml"], "no-such.yaml"),
        (["--host=203.0.113.1", "--port=0"], "203.0.113.1"),
    ],
)
def test_what_cannot_be_served_is_told(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
):
    """Before any process is started, with status 2."""
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err
