"""`quintet pull|list|show|create|cp|rm|ps|stop`: the store and a server, from the command line."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hub.fake_hub import FakeHub, running_hub
from quintet.cli import pull as pull_module
from quintet.cli.app import exit_status
from quintet.cli.remote import server_url
from quintet.cli.stored import StoredDefaults, stored_defaults
from quintet.cli.tables import age, duration, size
from quintet.errors import RequestError
from quintet.hub.packaged import packaged_models
from quintet.hub.pull import PullProgress
from quintet.hub.store import Store

DEMO = packaged_models()["demo"]
CONTENT = DEMO.read_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the commands see."""
    monkeypatch.setenv("QUINTET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return Store()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one model."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_hub() as hub:
        hub.add("user/demo", "demo-Q4_K_M.gguf", CONTENT)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def quintet(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints."""
    status = exit_status(arguments)
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line a command that fails prints."""
    assert exit_status(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quintet: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_from_pull_to_rm(capsys: pytest.CaptureFixture[str], hub: FakeHub, store: Store) -> None:
    """The life of a model: pulled, listed, shown, copied, removed; run on the way."""
    name = "hf.co/user/demo"
    assert exit_status(["pull", name]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "pulling manifest",
        f"pulling {DIGEST[:12]} ({len(CONTENT):,} bytes)",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    lines = quintet(capsys, "list").splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "MODIFIED", "FROM"]
    assert [line.split()[0] for line in lines[1:]] == ["demo:latest", f"{name}:latest"]
    assert [line.split()[1] for line in lines[1:]] == [DIGEST[:12]] * 2
    assert quintet(capsys, "ls") == "\n".join(lines) + "\n"

    shown = quintet(capsys, "show", name)
    assert f"sha256:{DIGEST}" in shown
    assert "architecture" in shown
    assert "is now mine:latest too" in quintet(capsys, "cp", name, "mine")
    arguments = ["--temperature", "0", "--max-tokens", "3", "--raw", "a"]
    assert quintet(capsys, "run", "mine", *arguments) == quintet(capsys, "run", "demo", *arguments)
    assert quintet(capsys, "rm", name, "mine") == f"removed {name}:latest\nremoved mine:latest\n"
    assert not store.has_blob(DIGEST)
    assert "quintet pull hf.co/user/demo" in refusal(capsys, "run", name, *arguments)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """What programs read: everything, under stable names."""
    (demo,) = json.loads(quintet(capsys, "list", "--json"))
    assert demo["name"] == "demo:latest"
    assert demo["size_bytes"] == len(CONTENT)
    shown = json.loads(quintet(capsys, "show", "demo", "--json"))
    assert {**shown, **demo} == shown
    assert shown["context_length"] > 0
    assert shown["num_parameters"] > 0


def test_a_modelfile_makes_a_model_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, store: Store
) -> None:
    """Created, shown as a Modelfile, created from that: the same."""
    file = tmp_path / "Modelfile"
    file.write_text(
        'FROM demo\nPARAMETER temperature 0\nPARAMETER stop "."\n'
        'SYSTEM """It\'s-a\nme"""\nMESSAGE user hi\nTEMPLATE {{ .Prompt }}\n'
    )
    assert exit_status(["create", "mario", "-f", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "created mario:latest\n"
    assert "Go's template language" in captured.err
    text = quintet(capsys, "show", "mario", "--modelfile")
    file.write_text(text)
    quintet(capsys, "create", "again", "-f", str(file))
    one, other = store.get("mario"), store.get("again")
    assert (one.system, one.parameters, one.messages, one.path) == (
        other.system,
        other.parameters,
        other.messages,
        other.path,
    )
    assert "parameter temperature" in quintet(capsys, "show", "mario")


def test_refusals(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command says in one line what is wrong."""
    monkeypatch.chdir(tmp_path)
    assert "comes with Quintet" in refusal(capsys, "rm", "demo")
    assert "'dmo' not found; there is demo" in refusal(capsys, "show", "dmo")
    assert "expected a name" in refusal(capsys, "cp", "demo", "../x")
    assert "did you mean hf.co/user/x" in refusal(capsys, "pull", "user/x")
    assert "Modelfile" in refusal(capsys, "create", "x")
    Path("Modelfile").write_bytes(b"\xff")
    assert "expected UTF-8" in refusal(capsys, "create", "x")
    Path("Modelfile").write_text("FROM demo\nPARAMETER x 1\n")
    assert "line 2: x: unknown parameter" in refusal(capsys, "create", "x")


def test_bars_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has its bar, each other step its line."""
    pull_module._show_bars(
        [
            PullProgress("pulling manifest"),
            PullProgress("pulling 0123", "sha256:0123", 10, 0),
            PullProgress("pulling 0123", "sha256:0123", 10, 10),
            PullProgress("pulling 4567", "sha256:4567", 10, 5),
            PullProgress("success"),
        ]
    )
    text = capsys.readouterr().err
    assert text.index("pulling manifest") < text.index("pulling 0123")
    assert text.count("pulling 0123") == text.count("pulling 4567") == 1
    assert "10/10 bytes" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(4_814_016), "4.81 MB"),
        (size(10**15), "1e+03 TB"),
        (duration(0.5), "less than a second"),
        (duration(1), "1 second"),
        (duration(3 * 3600 + 5), "3 hours"),
        (age(0.0).rpartition(" ")[2], "ago"),
    ],
)
def test_numbers_in_words(text: str, expected: str) -> None:
    """Sizes in decimal units, times in the largest that fits."""
    assert text == expected


# A server


class _Server(BaseHTTPRequestHandler):
    answers: dict[str, tuple[int, bytes]]
    requests: list[tuple[str, str, str | None, Any]]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.requests.append((self.command, self.path, self.headers.get("Authorization"), body))
        status, answer = self.answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Server]]:
    """A server whose answers a test writes, where QUINTET_HOST points."""
    handler = type("Handler", (_Server,), {"answers": {}, "requests": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("QUINTET_HOST", f"127.0.0.1:{server.server_address[1]}")
    try:
        yield handler
    finally:
        server.shutdown()
        server.server_close()


def test_ps_lists_what_is_loaded(
    capsys: pytest.CaptureFixture[str], server: type[_Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, sizes, and when they will be unloaded; the key goes along."""
    monkeypatch.setenv("QUINTET_API_KEY", "secret")
    models = [
        {
            "name": "demo:latest",
            "digest": DIGEST,
            "size": 4_814_016,
            "context_length": 512,
            "expires_at": "2020-01-01T00:00:00.123456789Z",
        },
        {"name": "\x1b[31mred", "expires_at": "2318-01-01T00:00:00+00:00"},
        {"expires_at": "soon"},
    ]
    server.answers["/api/ps"] = (200, json.dumps({"models": models}).encode())
    lines = quintet(capsys, "ps").splitlines()
    assert lines[1].split() == ["demo:latest", DIGEST[:12], "4.81", "MB", "512", "now"]
    assert lines[2].startswith("\ufffd[31mred")
    assert lines[2].endswith("for ever")
    assert lines[3].split() == ["?", "?", "?", "?"]
    assert server.requests == [("GET", "/api/ps", "Bearer secret", None)]
    assert json.loads(quintet(capsys, "ps", "--json")) == models


def test_stop_unloads(capsys: pytest.CaptureFixture[str], server: type[_Server]) -> None:
    """An empty prompt with keep_alive 0, as Ollama's own command sends it."""
    server.answers["/api/generate"] = (200, b'{"done": true, "done_reason": "unload"}')
    assert quintet(capsys, "stop", "demo") == "stopped demo\n"
    body = {"model": "demo", "keep_alive": 0, "stream": False}
    assert server.requests == [("POST", "/api/generate", None, body)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, b'{"error": "model \'x\' not found"}'), "model 'x' not found"),
        ((401, b"{}"), "set QUINTET_API_KEY"),
        ((500, b'{"error": {"message": "broken"}}'), "answered 500: broken"),
        ((500, b"<html>"), "answered 500: no reason given"),
        ((200, b"[]"), "expected a JSON object"),
        ((200, b"[" * 5000), "expected a JSON object"),
        ((200, b"\xff"), "expected a JSON object"),
    ],
)
def test_answers_of_a_server_in_trouble(
    capsys: pytest.CaptureFixture[str],
    server: type[_Server],
    answer: tuple[int, bytes],
    message: str,
) -> None:
    """Its own words where it has some."""
    server.answers["/api/generate"] = answer
    assert message in refusal(capsys, "stop", "x")


def test_no_server(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was looked for, and how to say where it is."""
    monkeypatch.setenv("QUINTET_HOST", "127.0.0.1:1")
    message = refusal(capsys, "ps")
    assert "no answer from http://127.0.0.1:1" in message
    assert "QUINTET_HOST" in message


@pytest.mark.parametrize("models", [b'{"models": 5}', b'{"models": [5]}', b"{}"])
def test_ps_checks_what_it_reads(
    capsys: pytest.CaptureFixture[str], server: type[_Server], models: bytes
) -> None:
    """A server of another kind is not taken for ours."""
    server.answers["/api/ps"] = (200, models)
    assert "expected a list of models" in refusal(capsys, "ps")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("example", "http://example:11434"),
        ("example:80", "http://example:80"),
        ("https://example", "https://example"),
        ("http://[::1]:5/", "http://[::1]:5"),
    ],
)
def test_where_the_server_is(monkeypatch: pytest.MonkeyPatch, host: str, url: str) -> None:
    """As Ollama's OLLAMA_HOST: a host, a host and a port, or an address."""
    monkeypatch.setenv("QUINTET_HOST", host)
    assert server_url() == url


@pytest.mark.parametrize("host", ["ftp://x", "http://", "http://x:y", "http://[x"])
def test_where_no_server_can_be(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A typing error is named by its variable."""
    monkeypatch.setenv("QUINTET_HOST", host)
    with pytest.raises(RequestError, match="QUINTET_HOST: expected an address"):
        server_url()


def test_run_uses_what_the_model_was_made_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, store: Store
) -> None:
    """Template, system prompt, opening and parameters act; the command line wins over them."""
    file = tmp_path / "Modelfile"
    file.write_text(
        "FROM demo\nPARAMETER temperature 0\nPARAMETER num_predict 5\nPARAMETER num_ctx 64\n"
        "PARAMETER mirostat 0\nPARAMETER mirostat_tau 4\nPARAMETER repeat_penalty 1\n"
        "SYSTEM What is\nMESSAGE user the capital of\n"
        'TEMPLATE """{% for m in messages %}{{ m.content }} {% endfor %}"""\n'
    )
    quintet(capsys, "create", "made", "-f", str(file))
    answer = quintet(capsys, "run", "made", "France?")
    raw = ["--raw", "--temperature", "0", "--max-tokens", "5", "What is the capital of France? "]
    assert answer == quintet(capsys, "run", "demo", *raw)
    longer = quintet(capsys, "run", "made", "France?", "--max-tokens", "9")
    assert len(longer) > len(answer)
    defaults = stored_defaults("made")
    assert defaults.max_model_len == 64
    assert defaults.sampling == {"temperature": 0.0, "max_tokens": 5, "repetition_penalty": 1.0}
    assert stored_defaults("demo") == stored_defaults("./demo") == StoredDefaults()
    file.write_text("FROM demo\nTEMPLATE {% if %}\n")
    assert "not a valid Jinja2 template" in refusal(capsys, "create", "x", "-f", str(file))
