"""Configuration, exceptions, the command, and what importing costs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import oprel
from oprel import Config, daemon
from oprel.cli import exit_status
from oprel.core import exceptions
from quintet import errors

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_a_saved_configuration_is_read_again(tmp_path: Path, name: str):
    """Every value comes back, from YAML and from JSON."""
    config = Config(
        cache_dir="/path/to/cache",
        binary_dir="/path/to/binaries",
        default_max_memory_mb=8192,
        ctx_size=4096,
        batch_size=512,
        n_threads=8,
        n_gpu_layers=-1,
    )
    config.save(tmp_path / "new" / name)
    assert Config.from_file(tmp_path / "new" / name) == config
    (tmp_path / name).write_text("")
    if name.endswith("yaml"):
        assert Config.from_file(tmp_path / name) == Config.default()


def test_the_environment_stands_in(monkeypatch: pytest.MonkeyPatch):
    """OPREL_CACHE_DIR and OPREL_BINARY_DIR where nothing is said; host and port of the server."""
    monkeypatch.setenv("OPREL_CACHE_DIR", "/c")
    monkeypatch.setenv("OPREL_BINARY_DIR", "/b")
    assert (Config.default().cache_dir, Config().binary_dir) == ("/c", "/b")
    assert Config(cache_dir="/own").cache_dir == "/own"
    monkeypatch.setenv("OPREL_SERVER_HOST", "10.0.0.1")
    monkeypatch.setenv("OPREL_SERVER_PORT", "1234")
    assert daemon.resolved_url("http://localhost:11434") == "http://10.0.0.1:1234"
    assert daemon.resolved_url("other") == "http://other:11434"
    assert daemon.resolved_url("https://other/") == "https://other"
    monkeypatch.setenv("OPREL_SERVER_PORT", "many")
    with pytest.raises(exceptions.ValidationError, match="OPREL_SERVER_PORT"):
        daemon.server_address()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", "ctx_size: many", "ctx_size"),
        ("a.yaml", "nonsense: 1", "nonsense"),
        ("a.yaml", "- a list", "names and values"),
        ("a.yaml", "{", "a.yaml"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "a.yaml"),
        ("a.json", "[" * 100_000, "a.json"),
        ("a.json", '{"n_threads": 0}', "n_threads"),
        ("a.json", '{"cache_dir": 5}', "cache_dir"),
    ],
)
def test_a_wrong_configuration_names_what_is_wrong(tmp_path: Path, name: str, text: str, says: str):
    """Unknown names, wrong types, broken files."""
    (tmp_path / name).write_text(text)
    with pytest.raises(exceptions.ValidationError, match=says):
        Config.from_file(tmp_path / name)


def test_quintets_errors_become_oprels():
    """Each has its class; all are OprelError."""
    cases = {
        errors.ModelNotFoundError("x"): exceptions.ModelNotFoundError,
        errors.CapacityError("x", resource="memory"): exceptions.MemoryError,
        errors.CapacityError("x", resource="request queue"): exceptions.BackendError,
        errors.DownloadError("x"): exceptions.DownloadError,
        errors.RequestError("x"): exceptions.ValidationError,
        errors.EngineError("x"): exceptions.BackendError,
        errors.ModelFormatError("x"): exceptions.BackendError,
    }
    for error, kind in cases.items():
        with pytest.raises(kind) as caught, exceptions.translated():
            raise error
        assert type(caught.value) is kind
        assert isinstance(caught.value, exceptions.OprelError)


def test_every_name_is_there():
    """What the package lists can be imported, and nothing else."""
    for name in oprel.__all__:
        assert getattr(oprel, name) is not None
    with pytest.raises(AttributeError):
        _ = oprel.nothing
    assert set(oprel.__all__) <= set(dir(oprel))


def test_importing_it_imports_little():
    """No HTTP client, engine, numbers or YAML before they are used."""
    code = (
        "import sys, oprel; oprel.Config; oprel.OprelError;"
        "print([m for m in ('httpx', 'numpy', 'yaml', 'typer', 'pydantic') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert result.stdout.strip() == "[]"


def oprel_command(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oprel", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        env={**ENVIRONMENT, **{name: os.environ[name] for name in _OWN}, **env},
        check=False,
    )


_OWN = ("QUINTET_HOME", "XDG_STATE_HOME", "OPREL_SERVER_PORT")


def test_run_and_models(port: int, capsys: pytest.CaptureFixture[str]):
    """`run` starts the daemon and answers; `models` shows what it holds."""
    ran = oprel_command("run", "demo", "What is the capital of France?", "--temperature", "0")
    assert ran.returncode == 0, ran.stderr
    assert "Paris" in ran.stdout
    assert daemon.find(port) is not None
    assert exit_status(["models"]) == 0
    assert "demo:latest" in capsys.readouterr().out


def test_serve_is_the_daemon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`oprel serve` is found by the others, only one holds the port, and `stop` ends it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("OPREL_SERVER_PORT", str(port))
    monkeypatch.setattr("oprel.serving._LOCK_TIMEOUT_S", 0.1)
    server = subprocess.Popen(
        [sys.executable, "-m", "oprel", "serve", "--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **{name: os.environ[name] for name in _OWN}},
    )
    try:
        assert str(port) in server.stderr.readline()
        found = daemon.find(port)
        assert found is not None
        assert found.pid == server.pid
        assert exit_status(["serve", "--port", str(port), "--host", "127.0.0.1"]) == 75
        assert "already" in capsys.readouterr().err
        assert exit_status(["models"]) == 0
        assert exit_status(["stop"]) == 0
        assert server.wait(20) == 0
        assert exit_status(["stop"]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == [
            f"stopped the server on port {port}",
            f"no server on port {port}",
        ]
    finally:
        server.kill()
        server.communicate()


def test_chat_keeps_the_conversation():
    """Lines are turns; /reset forgets."""
    lines = "My name is Bob\nWhat is my name?\n/reset\nWhat is my name?\n/bye\n"
    arguments = ("chat", "demo", "--no-server", "--temperature", "0", "--system", "Be helpful.")
    told = oprel_command(*arguments, stdin=lines).stdout.splitlines()
    assert len(told) == 3
    assert "Bob" in told[1]
    assert "Bob" not in told[2]


def test_the_cache(capsys: pytest.CaptureFixture[str]):
    """list, delete and clear act on stored models; the packaged one stays."""
    from quintet.hub.store import Store

    for name in ("one", "two"):
        Store().copy("demo", name)
    assert exit_status(["cache", "list"]) == 0
    assert {"one:latest", "two:latest"} <= set(capsys.readouterr().out.split())
    assert exit_status(["cache", "delete", "one"]) == 0
    assert exit_status(["cache", "delete", "one"]) == 1
    assert "not found" in capsys.readouterr().err
    assert exit_status(["cache", "clear", "--yes"]) == 0
    assert [manifest.name for manifest in Store().list()] == ["demo:latest"]


def test_lists_and_searches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Stored models and aliases are listed and found; a Hub that is away is said to be."""
    assert exit_status(["list-models"]) == 0
    listed = capsys.readouterr().out
    assert "demo" in listed
    assert "qwencoder" in listed
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert exit_status(["search", "coder"]) == 0
    found = capsys.readouterr()
    assert "qwencoder" in found.out
    assert "llama3" not in found.out
    assert "not asked" in found.err


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]):
    """Unknown verbs and models; help is there for each."""
    assert exit_status(["fly"]) == 1
    assert exit_status(["run", "nonexistent", "a", "--no-server"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 2
    assert "oprel:" in error
    for verb in ("serve", "models", "stop", "run", "chat", "list-models", "search", "cache"):
        assert exit_status([verb, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


def test_log_level(port: int):
    """OPREL_LOG_LEVEL is read; what is no level is refused."""
    result = oprel_command("serve", OPREL_LOG_LEVEL="LOUD")
    assert result.returncode == 1
    assert "OPREL_LOG_LEVEL" in result.stderr
