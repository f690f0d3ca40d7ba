"""The server command: its file, its variables, its folder, its interface."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from quintet.hub.packaged import packaged_models
from woolly.errors import InvalidRequest
from woolly.server import Directory, settings_of
from woolly.server_config import ServerConfig

# As the reference prints it.
REFERENCE = """
# woolly.config.yaml
server:
  host: 0.0.0.0
  port: 11434
  cors:
    enabled: true
    origins: ["*"]

models:
  directory: ./models
  preload: []

inference:
  max_batch_size: 4
  max_sequence_length: 4096
  gpu:
    enabled: true
    layers: 32
  cpu:
    threads: 8

cache:
  enabled: true
  size: 1073741824  # 1GB
  ttl: 3600         # 1 hour

logging:
  level: info
  format: json
  output: stdout

security:
  api_key_required: false
  rate_limiting:
    enabled: true
    requests_per_minute: 60
"""


def test_the_references_file(tmp_path: Path):
    """Every setting of it is read, and becomes Quintet's."""
    path = tmp_path / "woolly.config.yaml"
    path.write_text(REFERENCE)
    config = ServerConfig.load(path, {})
    assert config == ServerConfig(
        host="0.0.0.0",
        port=11434,
        cors_enabled=True,
        cors_origins=["*"],
        models_directory="./models",
        preload=[],
        max_batch_size=4,
        max_sequence_length=4096,
        gpu_enabled=True,
        gpu_layers=32,
        cpu_threads=8,
        cache_enabled=True,
        cache_size=2**30,
        cache_ttl=3600,
        log_level="info",
        log_format="json",
        log_output="stdout",
        api_key_required=False,
        rate_limiting_enabled=True,
        requests_per_minute=60,
    )
    settings = settings_of(config)
    assert (settings.host, settings.port, settings.dialect) == ("0.0.0.0", 11434, "woolly")
    assert settings.cors_origins == {"*"}
    assert settings.rate_limits.requests_per_minute == 60
    assert not settings.keys


def test_the_references_variables(tmp_path: Path):
    """Each goes before the file; options go before both."""
    environment = {
        "WOOLLY_HOST": "127.0.0.1",
        "WOOLLY_PORT": "4321",
        "WOOLLY_MODELS_DIR": "/path/to/models",
        "WOOLLY_GPU_ENABLED": "false",
        "WOOLLY_GPU_LAYERS": "3",
        "WOOLLY_CPU_THREADS": "2",
        "WOOLLY_LOG_LEVEL": "debug",
        "WOOLLY_LOG_FORMAT": "text",
        "WOOLLY_API_KEY": "your-secret-key",
        "WOOLLY_RATE_LIMIT": "7",
    }
    path = tmp_path / "a.yaml"
    path.write_text(REFERENCE)
    config = ServerConfig.load(path, environment, port=1)
    assert (
        dataclasses.asdict(config).items()
        >= {
            "host": "127.0.0.1",
            "port": 1,
            "models_directory": "/path/to/models",
            "gpu_enabled": False,
            "gpu_layers": 3,
            "cpu_threads": 2,
            "log_level": "debug",
            "log_format": "text",
            "api_key": "your-secret-key",
            "requests_per_minute": 7,
        }.items()
    )
    assert "secret" not in repr(config)
    assert ServerConfig.load(path, {"WOOLLY_RATE_LIMIT": "0"}).rate_limiting_enabled is False
    for name, value in (
        ("WOOLLY_PORT", "many"),
        ("WOOLLY_GPU_ENABLED", "perhaps"),
        ("WOOLLY_RATE_LIMIT", "x"),
    ):
        with pytest.raises(InvalidRequest, match=name):
            ServerConfig.load(path, {name: value})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server:\n  prot: 1", "server.prot"),
        ("server:\n  port: high", "server.port"),
        ("server:\n  port: true", "server.port"),
        ("server:\n  port: 70000", "server.port"),
        ("server: 5", "server"),
        ("models:\n  preload: [1]", "models.preload"),
        ("logging:\n  level: loud", "logging.level"),
        ("security:\n  api_key_required: true", "WOOLLY_API_KEY"),
        ("- a", "names and values"),
        ("{", "a.yaml"),
        ("!!python/object/apply:os.getcwd []", "a.yaml"),
    ],
)
def test_a_wrong_file_names_what_is_wrong(tmp_path: Path, text: str, says: str):
    """Unknown settings, wrong types, values out of range."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InvalidRequest, match=re.escape(says)):
        ServerConfig.load(tmp_path / "a.yaml", {})


def test_who_may_use_it():
    """Other machines need a key, unless the file says in so many words that they do not."""
    open_to_all = ServerConfig(host="0.0.0.0")
    with pytest.raises(InvalidRequest, match="other machines"):
        settings_of(open_to_all)
    assert settings_of(dataclasses.replace(open_to_all, api_key_required=False))
    with_key = settings_of(dataclasses.replace(open_to_all, api_key="k"))
    assert len(with_key.keys) == 1
    assert not settings_of(ServerConfig(api_key="k", api_key_required=False)).keys
    import socket

    assert socket.gethostname().lower() in with_key.allowed_hosts


def test_the_folder_is_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files come and go; aliases and stored names are found; paths are no names."""
    from quintet.errors import ModelNotFoundError

    directory = Directory(tmp_path / "models")
    assert directory.list() == []
    (tmp_path / "models").mkdir()
    shutil.copy(packaged_models()["demo"], tmp_path / "models" / "llama-7b-q4.gguf")
    (tmp_path / "models" / "notes.txt").touch()
    assert [manifest.name for manifest in directory.list()] == ["llama-7b-q4"]
    assert directory.get("llama-7b-q4").size_bytes > 10**6
    aliases = tmp_path / "aliases.json"
    aliases.write_text(json.dumps({"llama-7b": "llama-7b-q4", "mistral": "demo"}))
    monkeypatch.setenv("QUINTET_ALIASES", str(aliases))
    assert directory.get("llama-7b").name == "llama-7b-q4"
    assert directory.get("mistral").path == packaged_models()["demo"]
    assert {manifest.name for manifest in directory.list()} == {"llama-7b-q4", "mistral"}
    for name in ("../llama-7b-q4", "/etc/passwd", "none"):
        with pytest.raises(ModelNotFoundError):
            directory.get(name)


@contextlib.contextmanager
def serving(folder: Path, text: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command in a folder with this file until the block ends."""
    (folder / "woolly.config.yaml").write_text(text)
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", "woolly", "serve", "--port", "0"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **env},
    )
    try:
        line = process.stderr.readline()
        match = re.search(r"Serving at (http://\S+)$", line.rstrip())
        assert match, line + process.stderr.read()
        yield process, match[1]
    finally:
        process.kill()
        process.communicate()


def test_the_command_serves_its_folder(tmp_path: Path):
    """With the reference's file, but for the address: models, answers, WebSocket, CORS, log."""
    (tmp_path / "models").mkdir()
    shutil.copy(packaged_models()["demo"], tmp_path / "models" / "llama-7b-q4.gguf")
    text = REFERENCE.replace("0.0.0.0", "127.0.0.1").replace(
        "preload: []", "preload: [llama-7b-q4]"
    )
    text = text.replace("threads: 8", "threads: 1").replace("1073741824", "8388608")
    with serving(tmp_path, text) as (process, url), httpx.Client(base_url=url) as http:
        assert http.get("/health").json()["status"] == "ok"
        (model,) = http.get("/api/models").json()
        assert (model["name"], model["loaded"]) == ("llama-7b-q4", True)
        answer = http.post(
            "/api/chat",
            json={
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
                "temperature": 0,
            },
            headers={"Origin": "https://any.example"},
        )
        assert "Paris" in answer.json()["content"]
        assert answer.headers["access-control-allow-origin"] == "https://any.example"
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        found = http.post("/api/models/load", json={"name": "none"})
        assert (found.status_code, found.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")
        with connect(f"{url.replace('http', 'ws')}/ws") as socket:
            assert json.loads(socket.recv(10))["type"] == "status"
            config = {"max_tokens": 5, "temperature": 0}
            request = {"type": "generate", "id": "r", "prompt": "Once", "config": config}
            socket.send(json.dumps(request))
            types = []
            while not types or types[-1] != "complete":
                types.append(json.loads(socket.recv(10))["type"])
            assert "token" in types
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        lines = [json.loads(line) for line in process.stdout.read().splitlines()]
        assert any(line["message"].startswith("serving at") for line in lines)


def test_a_key_and_a_log_file(tmp_path: Path):
    """WOOLLY_API_KEY is asked for; the log goes where the file says."""
    text = f"logging:\n  output: {tmp_path}/woolly.log\n"
    with serving(tmp_path, text, WOOLLY_API_KEY="k") as (_, url):
        assert httpx.get(f"{url}/api/models").status_code == 401
        headers = {"Authorization": "Bearer k"}
        assert httpx.get(f"{url}/api/models", headers=headers).json() == []
    assert "serving at" in (tmp_path / "woolly.log").read_text()


def test_wrong_usage_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Files and words that are not there; a model to preload that is not."""
    from woolly.cli import exit_status

    assert exit_status(["--config", str(tmp_path / "none.yaml")]) == 1
    assert exit_status(["fly"]) == 1
    assert exit_status(["--port", "x"]) == 1
    assert capsys.readouterr().err.count("\n") == 3
    assert exit_status(["--help"]) == 0
    assert "models-dir" in capsys.readouterr().out
