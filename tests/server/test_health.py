"""/health follows the engine's progress."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

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
from quintet.hub.manifest import Manifest
from quintet.server.catalog import ServedModels, local_manifest
from quintet.server.errors import HTTPRefusal, error_reply
from quintet.server.keys import ApiKey
from quintet.server.models import Models
from quintet.server.run import Server, check_exposure, serve_async
from quintet.server.settings import Settings

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


def test_probes_say_what_state_they_saw():
    """Each part of /health has its own idea of good: ready to serve, alive, started."""

    async def main() -> None:
        engine = FakeEngine()
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):

            async def observe(state: str) -> list[int]:
                replies = [
                    await client.get(f"/health{part}")
                    for part in ("", "/ready", "/live", "/startup")
                ]
                assert [reply.json() for reply in replies] == [{"status": state}] * 4
                return [reply.status_code for reply in replies]

            assert await observe("ok") == [200, 200, 200, 200]
            engine.state = "restarting"
            assert await observe("restarting") == [503, 503, 200, 200]
            server.health.is_starting = True
            assert await observe("starting") == [503, 503, 200, 503]
            server.health.is_starting = False
            engine.state = "closed"
            assert await observe("closed") == [503, 503, 503, 200]

    run(main())


def test_a_server_answers_while_it_loads_its_models():
    """The port is open at once: probes read "starting", requests wait for their model."""

    async def main() -> None:
        may_load = asyncio.Event()

        async def load(manifest: Manifest) -> FakeEngine:
            await may_load.wait()
            return FakeEngine()

        models = Models(ServedModels([local_manifest("m", Path("m"))]), load)
        listening: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        task = asyncio.ensure_future(
            serve_async(
                models,
                Settings(port=port),
                on_listening=listening.set_result,
                prepare=lambda: models.load("m"),
            )
        )
        transport = httpx.AsyncHTTPTransport(retries=5)  # until it listens
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, transport=transport) as client:
            reply = await client.get("/health/startup")
            assert (reply.status_code, reply.json()) == (503, {"status": "starting"})
            answer = asyncio.ensure_future(client.post("/v1/completions", json=BODY))
            assert (await client.get("/health/live")).status_code == 200
            assert not listening.done()
            may_load.set()
            assert (await answer).status_code == 200
            server = await listening
            assert (await client.get("/health")).json() == {"status": "ok"}
        server.stop()
        await asyncio.wait_for(task, 10)

    run(main())


def test_a_server_that_is_stopped_while_it_loads_gives_up():
    """It does not wait for a model that nobody will ask."""
    has_ended = []

    async def load(manifest: Manifest) -> FakeEngine:
        try:
            await asyncio.sleep(1000)
        finally:
            has_ended.append(True)
        raise AssertionError

    async def main() -> None:
        models = Models(ServedModels([local_manifest("m", Path("m"))]), load)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        task = asyncio.ensure_future(
            serve_async(models, Settings(port=port), prepare=lambda: models.load("m"))
        )
        transport = httpx.AsyncHTTPTransport(retries=5)
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get(f"http://127.0.0.1:{port}/health")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)
        assert has_ended

    run(main())


def test_a_model_that_cannot_be_loaded_ends_the_start():
    """Whoever started the server gets the error; nothing goes on listening."""

    async def load(manifest: Manifest) -> FakeEngine:
        raise ModelFormatError("broken")

    async def main() -> None:
        models = Models(ServedModels([local_manifest("m", Path("m"))]), load)
        with pytest.raises(ModelFormatError, match="broken"):
            await serve_async(models, Settings(port=0), prepare=lambda: models.load("m"))

    run(main())


def test_a_lost_worker_is_restarting():
    """From the crash until the next worker has loaded, seen through the process boundary."""

    async def main() -> None:
        async with (
            AsyncLLM("demo", isolated=True, num_threads=1) as llm,
            serving({"m": llm}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            assert (await client.get("/health")).json() == {"status": "ok"}
            os.kill(llm._loaded_runtime().client.pid, signal.SIGKILL)
            await until(lambda: llm.state == "restarting")
            reply = await client.get("/health")
            assert (reply.status_code, reply.json()) == (503, {"status": "restarting"})
            assert (await client.get("/health/live")).status_code == 200
            await until(lambda: llm.state == "ready", timeout_s=20)
            assert (await client.get("/health")).json() == {"status": "ok"}

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
    check_exposure(Settings(host=host, keys=(ApiKey.of("k"),)), force=False)
