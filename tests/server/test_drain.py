"""A server that was told to stop: what runs may end, what is new is told to go elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
import websockets

from .fake import FakeEngine
from .harness import run, serving, until

BODY = {"model": "m", "prompt": "a", "max_tokens": 4}
CHAT = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "a"}]}

# Of every dialect that streams: where, what is asked, and what its last frame must hold.
STREAMS = [
    ("/v1/completions", {**BODY, "stream": True}, ["error", "message"]),
    ("/v1/chat/completions", {**CHAT, "stream": True}, ["error", "message"]),
    ("/v1/messages", {**CHAT, "stream": True}, ["error", "message"]),
    ("/completion", {**BODY, "stream": True}, ["error", "message"]),
    ("/api/chat", CHAT, ["error"]),
    ("/api/generate", BODY, ["error"]),
]


def test_who_runs_may_end_and_who_comes_is_told():
    """Readiness turns at once, liveness does not; new requests get 503 and where to go."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            answer = asyncio.ensure_future(client.post("/v1/completions", json=BODY))
            await until(lambda: engine.num_running == 1)
            server.stop()
            for _ in range(2):  # also on new connections
                async with httpx.AsyncClient(base_url=server.url) as other:
                    ready = await other.get("/health/ready")
                    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
                    assert (await other.get("/health/live")).status_code == 200
                    for reply in (
                        await other.post("/v1/completions", json=BODY),
                        await other.get("/v1/models"),
                    ):
                        assert reply.status_code == 503
                        assert reply.headers["retry-after"] == "5"
                        assert reply.headers["connection"] == "close"
                        assert reply.json()["error"]["code"] == "shutting_down"
                await asyncio.sleep(0.15)  # longer than uvicorn's tick
            assert engine.num_running == 1
            engine.permit(100)
            assert (await answer).json()["choices"][0]["text"] == "Hello world!"
            await until(lambda: engine.is_closed)

    run(main())


def test_an_idle_server_stops_at_once():
    """Open connections without a request do not hold it."""

    async def main() -> None:
        engine = FakeEngine()
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            await client.get("/health")
            server.stop()
            await until(lambda: engine.is_closed)

    run(main())


@pytest.mark.parametrize(("path", "body", "where"), STREAMS, ids=[path for path, *_ in STREAMS])
def test_streams_that_take_too_long_end_with_an_error_frame(
    path: str, body: dict[str, Any], where: list[str]
):
    """In the form of each dialect, as the last frame, on a connection that ends properly."""

    async def main() -> None:
        engine = FakeEngine((1, 2) * 20, is_gated=True)
        async with (
            serving({"m": engine}, drain_timeout_s=0.1) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            engine.permit(2)
            async with client.stream("POST", path, json=body) as reply:
                assert reply.status_code == 200
                lines = aiter(reply.aiter_lines())
                await anext(lines)
                server.stop()
                last = [line async for line in lines if line][-1]
            frame = json.loads(last.removeprefix("data: "))
            for name in where:
                assert name in frame
                frame = frame[name]
            assert "closed" in frame

    run(main())


async def messages(socket: websockets.ClientConnection) -> list[dict[str, Any]]:
    """All there are until it is closed, for whatever reason."""
    received = []
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            received.append(json.loads(await socket.recv()))
    return received


@pytest.mark.parametrize(
    ("path", "message", "where"),
    [
        ("/ws", {"type": "generate", "id": "1", "prompt": "a"}, ["error"]),
        (
            "/v1/responses",
            {"type": "response.create", "model": "m", "input": "a"},
            ["response", "error", "message"],
        ),
    ],
    ids=["/ws", "/v1/responses"],
)
def test_sockets_that_take_too_long_end_with_an_error_message(
    path: str, message: dict[str, Any], where: list[str]
):
    """Then the connection is closed with the code that means a restart; idle ones at once."""

    async def main() -> None:
        engine = FakeEngine((1, 2) * 20, is_gated=True)
        async with serving({"m": engine}, drain_timeout_s=0.2) as server:
            url = server.url.replace("http", "ws") + path
            async with websockets.connect(url) as socket, websockets.connect(url) as idle:
                engine.permit(2)
                await socket.send(json.dumps(message))
                await until(lambda: engine.num_steps == 2)
                server.stop()
                frame = (await messages(socket))[-1]
                for name in where:
                    assert name in frame, frame
                    frame = frame[name]
                assert "closed" in frame
                await idle.wait_closed()
                assert {socket.close_code, idle.close_code} <= {1012, 1000}

    run(main())


def test_a_socket_may_end_its_answer():
    """As long as the drain lasts; a new handshake is refused meanwhile."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with serving({"m": engine}) as server:
            url = server.url.replace("http", "ws") + "/ws"
            async with websockets.connect(url) as socket:
                await socket.send(json.dumps({"type": "generate", "id": "1", "prompt": "a"}))
                await until(lambda: engine.num_running == 1)
                server.stop()
                with pytest.raises(websockets.InvalidStatus) as caught:
                    await websockets.connect(url)
                assert caught.value.response.status_code == 503
                assert caught.value.response.headers["retry-after"] == "5"
                engine.permit(100)
                assert (await messages(socket))[-1]["text"] == "Hello world!"

    run(main())


def test_answers_that_take_too_long_are_a_500():
    """A client that waits for the whole is told as well."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}, drain_timeout_s=0.1) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            answer = asyncio.ensure_future(client.post("/v1/completions", json=BODY))
            await until(lambda: engine.num_running == 1)
            server.stop()
            reply = await answer
            assert reply.status_code == 500
            assert "closed" in reply.json()["error"]["message"]

    run(main())
