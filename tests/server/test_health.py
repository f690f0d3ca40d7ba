"""/health follows the engine's progress."""

from __future__ import annotations

import asyncio
import os
import signal

import httpx
import pytest

from quintet import AsyncLLM
from quintet.errors import (
    CapacityError,
    EngineError,
    ModelFormatError,
    ModelNotFoundError,
    QuintetError,
    RequestError,
)
from quintet.server.errors import HTTPRefusal, error_reply
from quintet.server.run import check_exposure
from quintet.server.settings import Settings, key_digest

from .fake import FakeEngine
from .harness import run, serving, until

BODY = {"model": "m", "prompt": "a", "max_tokens": 4}


def test_waiting_work_without_steps_is_ill_health():
    """Stuck while somebody waits, well again with the next step; an idle engine is well."""

    async def main() -> None:
        engine = FakeEngine((1, 2, 3, 4), is_gated=True)
        async with (
            serving({"m": engine}, stuck_after_s=0.3) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            await asyncio.sleep(0.4)
            assert (await client.get("/health")).status_code == 200
            answer = asyncio.ensure_future(client.post("/v1/completions", json=BODY))
            await until(lambda: engine.num_running == 1)
            assert (await client.get("/health")).status_code == 200
            await asyncio.sleep(0.4)
            reply = await client.get("/health")
            assert (reply.status_code, reply.json()) == (503, {"status": "stuck"})
            engine.permit()
            await until(lambda: engine.num_steps == 1)
            assert (await client.get("/health")).status_code == 200
            engine.permit(10)
            assert (await answer).json()["choices"][0]["text"] == "Hello world!"

    run(main())


def test_a_worker_that_hangs_is_ill_health():
    """The probe sees through the process boundary: stuck, well again, and ready afterwards."""

    async def main() -> None:
        async with (
            AsyncLLM("demo", isolated=True, num_threads=1) as llm,
            serving({"m": llm}, stuck_after_s=0.3) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            pid = llm._loaded_runtime().client.pid
            os.kill(pid, signal.SIGSTOP)
            answer = asyncio.ensure_future(client.post("/v1/completions", json=BODY))
            await asyncio.sleep(0.1)
            assert (await client.get("/health")).status_code == 200
            await asyncio.sleep(0.5)
            reply = await client.get("/health")
            assert (reply.status_code, reply.json()) == (503, {"status": "stuck"})
            os.kill(pid, signal.SIGCONT)
            assert (await answer).status_code == 200
            assert (await client.get("/health")).status_code == 200

    run(main())


def test_a_closed_engine_is_ill_health():
    """A model that takes no requests, for now or for good, is not well, with nothing to do too."""

    async def main() -> None:
        engine = FakeEngine()
        async with serving({"m": engine}) as server, httpx.AsyncClient() as client:
            for state in ("restarting", "closed"):
                engine.state = state
                reply = await client.get(f"{server.url}/health")
                assert (reply.status_code, reply.json()) == (503, {"status": state})

    run(main())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError("x"), 400, None),
        (ModelNotFoundError("x"), 404, "model_not_found"),
        (CapacityError("x", resource="y"), 503, "overloaded"),
        (EngineError("x"), 500, "engine_error"),
        (ModelFormatError("x", path="/secret/path"), 500, "model_error"),
        (QuintetError("x"), 500, "model_error"),
        (HTTPRefusal(413, "x", code="y"), 413, "y"),
        (ZeroDivisionError("/secret/path"), 500, "internal_error"),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int, code: str | None):
    """One table; files of this machine are not named to clients."""
    reply = error_reply(error)
    body = reply.openai_body()
    assert (reply.status, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "/secret" not in str(body)


def test_a_bug_is_a_500_with_a_fixed_text(caplog: pytest.LogCaptureFixture):
    """What went wrong is in the log, not in the reply."""

    async def main() -> None:
        engine = FakeEngine(error=ZeroDivisionError("/secret/path"))
        async with serving({"m": engine}) as server, httpx.AsyncClient() as client:
            reply = await client.post(f"{server.url}/v1/completions", json=BODY)
        assert reply.status_code == 500
        assert reply.json()["error"]["message"] == "internal error"
        assert reply.headers["x-request-id"] in caplog.text

    run(main())
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.com"])
def test_other_machines_need_a_key(host: str):
    """An address beyond loopback is refused without a key, unless forced."""
    with pytest.raises(RequestError, match="--api-key"):
        check_exposure(Settings(host=host), force=False)
    check_exposure(Settings(host=host), force=True)
    check_exposure(Settings(host=host, key_digests=(key_digest(b"k"),)), force=False)


def test_a_drain_that_takes_too_long_ends_with_an_error():
    """After the drain's deadline what still runs is told, and the server ends."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}, drain_timeout_s=0.2) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            answer = asyncio.ensure_future(client.post("/v1/completions", json=BODY))
            await until(lambda: engine.num_running == 1)
            server.stop()
            reply = await answer
            assert reply.status_code == 500
            assert "closed" in reply.json()["error"]["message"]

    run(main())
