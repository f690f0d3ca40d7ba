"""The `densecore` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from densecore.server import serve_arguments

BASE = ["serve", "--dialect", "densecore"]


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["m.gguf"], {}, ["m.gguf"]),
        (["serve", "m.gguf"], {}, ["m.gguf"]),
        ([], {"MAIN_MODEL_PATH": "m.gguf"}, ["m.gguf"]),
        (["a.gguf"], {"MAIN_MODEL_PATH": "m.gguf"}, ["a.gguf"]),
        (
            ["--port", "1"],
            {"MAIN_MODEL_PATH": "m.gguf", "PORT": "2", "HOST": "::1", "THREADS": "0"},
            ["--host", "::1", "--port", "2", "m.gguf", "--port", "1"],
        ),
        ([], {"AUTH_ENABLED": "false", "API_KEYS": "k"}, []),
        (
            [],
            {"AUTH_ENABLED": "true", "API_KEYS": "k1:user:free, k2,", "THREADS": "3"},
            ["--threads", "3", "--api-key", "k1", "--api-key", "k2"],
        ),
    ],
)
def test_the_environment_becomes_options(
    arguments: list[str], environment: dict[str, str], expected: list[str]
):
    """What DenseCore's server reads, and what is given wins."""
    assert serve_arguments(arguments, environment) == [*BASE, *expected]


def test_it_serves_with_a_key():
    """AUTH_ENABLED asks for one, and the answers are DenseCore's."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from densecore.server import main; main()", "--in-process"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "MAIN_MODEL_PATH": "demo",
            "PORT": "0",
            "AUTH_ENABLED": "true",
            "API_KEYS": "sk-test:me:pro",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in process.stderr if "Serving" in line)
        url = line.rpartition(" ")[2].strip().removesuffix("/v1")
        with urllib.request.urlopen(f"{url}/health") as answer:
            health = json.load(answer)
        assert health["status"] == "healthy"
        assert health["timestamp"].endswith("Z")
        for probe in ("/health/live", "/health/ready", "/health/startup"):
            with urllib.request.urlopen(url + probe) as answer:
                assert (answer.status, json.load(answer)) == (200, {"status": "ok"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/v1/models")
        asked = urllib.request.Request(
            f"{url}/v1/models", headers={"Authorization": "Bearer sk-test"}
        )
        with urllib.request.urlopen(asked) as answer:
            (listed,) = json.load(answer)["data"]
        assert listed["id"] == "demo"
        assert listed["owned_by"] == "densecore"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_auth_without_a_key_is_refused():
    """Rather than a server open to all that was meant to be closed."""
    code = "from densecore.server import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "AUTH_ENABLED": "true",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "AUTH_ENABLED" in done.stderr
