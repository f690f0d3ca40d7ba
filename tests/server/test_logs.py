"""The log: what it says of a request, and what no client can make it say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from quintet.logs import JSONFormatter, TextFormatter
from quintet.server.exchange import current_request_id
from quintet.server.keys import ApiKey

from .fake import FakeEngine
from .harness import run, serving

EVIL = 'x\n2026-01-01T00:00:00Z ERROR quintet: forged\r\x1b[31m\u2028{"a": 1}'


@pytest.fixture
def logged() -> Iterator[dict[str, io.StringIO]]:
    """What the server logs, in both formats."""
    logger = logging.getLogger("quintet")
    level, streams = logger.level, {}
    handlers = []
    for name, formatter in (
        ("json", JSONFormatter(current_request_id)),
        ("text", TextFormatter(current_request_id)),
    ):
        streams[name] = io.StringIO()
        handlers.append(logging.StreamHandler(streams[name]))
        handlers[-1].setFormatter(formatter)
        logger.addHandler(handlers[-1])
    logger.setLevel(logging.INFO)
    yield streams
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


def test_a_request_is_one_line(logged: dict[str, io.StringIO]):
    """With its id, route, status, model, tokens and owner; without prompt, answer, key, address."""

    async def main() -> None:
        keys = (ApiKey.of("sesame", "anna"), ApiKey.of("hidden"))
        async with (
            serving({"m": FakeEngine()}, keys=keys) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {"model": "m", "prompt": "my secret", "max_tokens": 2}
            for secret in ("sesame", "hidden"):
                headers = {"x-request-id": "mine-7", "x-api-key": secret}
                await client.post("/v1/completions?q=riddle", json=body, headers=headers)
            await client.get("/health")

    run(main())
    lines = [json.loads(line) for line in logged["json"].getvalue().splitlines()]
    assert len(lines) == 2  # probes are no news
    line = lines[0]
    assert line.pop("timestamp").endswith("Z")
    assert 0 < line.pop("duration_ms") < 30_000
    assert line == {
        "level": "info",
        "logger": "quintet.server.observer",
        "message": "request",
        "request_id": "mine-7",
        "method": "POST",
        "route": "/v1/completions",
        "status": 200,
        "model": "m",
        "prompt_tokens": 7,
        "generated_tokens": 2,
        "client": "anna",
    }
    assert len(lines[1]["client"]) == 12
    text = logged["text"].getvalue()
    assert "request_id=mine-7 method=POST route=/v1/completions status=200" in text
    for secret in ("my secret", "Hello", "sesame", "hidden", "riddle", "127.0.0.1"):
        assert secret not in text + logged["json"].getvalue()


def test_no_client_can_write_a_line(logged: dict[str, io.StringIO]):
    """Line breaks and terminal codes in paths, models and errors stay inside their line."""

    async def main() -> None:
        engine = FakeEngine(error=ZeroDivisionError(EVIL))
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            await client.post("/v1/completions", json={"model": EVIL, "prompt": EVIL})
            await client.get("/" + "%0Aforged")
            reply = await client.post("/v1/completions", json={"model": "m", "prompt": "a"})
            assert reply.status_code == 500

    run(main())
    lines = logged["json"].getvalue().splitlines()
    assert [json.loads(line)["level"] for line in lines].count("error") == 1
    assert all(json.loads(line)["request_id"] for line in lines)
    for line in logged["text"].getvalue().split("\n"):
        assert not set(line) & set("\r\x1b\u2028")
        assert not line.startswith("2026-01-01")


def test_a_traceback_is_indented():
    """Whatever an exception says, only lines of ours begin at the margin."""
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        record = logging.LogRecord("n", 40, "f", 1, "%s", (error,), (ValueError, error, None))
    first, *rest = TextFormatter().format(record).split("\n")
    assert "ERROR n: x\\x0a2026" in first
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert json.loads(JSONFormatter().format(record))["message"] == EVIL
