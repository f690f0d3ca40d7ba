"""Clients that leave, stall or trickle, on every protocol that streams."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from quintet.server import run as run_module

from . import fake
from .fake import FakeEngine
from .harness import run, serving, until

TOKENS = (1, 2) * 50
ENDLESS = (1, 2) * 100_000
CHAT = {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "a"}]}
TEXT = {"model": "m", "prompt": "a"}
STREAMS = {
    "/v1/completions": {**TEXT, "max_tokens": 1000, "stream": True},
    "/v1/responses": {"model": "m", "input": "a", "stream": True},
    "/v1/messages": {**CHAT, "stream": True},
    "/completion": {**TEXT, "stream": True},
    "/api/chat": CHAT,
    "/api/generate": TEXT,
    "/woolly/api/generate": {"prompt": "a", "stream": True},
}
WHOLES = {
    "/v1/responses": {"model": "m", "input": "a"},
    "/v1/messages": CHAT,
    "/completion": TEXT,
    "/api/chat": {**CHAT, "stream": False},
    "/woolly/api/generate": {"prompt": "a"},
}
SOCKETS = {
    "/ws": {"type": "generate", "id": "1", "prompt": "a", "config": {"maxTokens": 100_000}},
    "/v1/responses": {"type": "response.create", "model": "m", "input": "a"},
}
PLACES = [
    *(("http", path, body) for path, body in STREAMS.items()),
    *(("http", path, body) for path, body in WHOLES.items()),
    *(("ws", path, message) for path, message in SOCKETS.items()),
]
IDS = [f"{kind} {path} {'stream' in body}" for kind, path, body in PLACES]


class Raw:
    """A connection by hand: it can stop wherever it likes, and answers no ping."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str) -> Raw:
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def post(self, path: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        await self.writer.drain()

    async def talk(self, path: str, message: dict[str, Any]) -> None:
        """Open a WebSocket and send a message."""
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        data = json.dumps(message).encode()
        # A text frame with a mask of zeros: RFC 6455, section 5.2.
        self.writer.write(b"\x81\xfe" + len(data).to_bytes(2, "big") + bytes(4) + data)
        await self.writer.drain()

    async def ask(self, kind: str, path: str, body: dict[str, Any]) -> None:
        await (self.post if kind == "http" else self.talk)(path, body)

    def leave(self) -> None:
        self.writer.transport.abort()


@pytest.mark.parametrize(("kind", "path", "body"), PLACES, ids=IDS)
def test_leaving_ends_the_generation(kind: str, path: str, body: dict[str, Any]):
    """Before, at or after any token, streamed or whole: within one step."""

    async def main() -> None:
        engine = FakeEngine(TOKENS, is_gated=True)
        async with serving({"m": engine}) as server:
            for num_aborted, num_steps in enumerate((0, 1, 2, 7), 1):
                client = await Raw.open(server.url)
                await client.ask(kind, path, body)
                await until(lambda: engine.num_running == 1)
                expected = engine.num_steps + num_steps
                engine.permit(num_steps)
                await until(lambda expected=expected: engine.num_steps == expected)
                client.leave()
                await until(lambda: engine.num_running == 0)
                assert (engine.num_steps, engine.num_aborted) == (expected, num_aborted)
                await until(lambda: server._http_stats.num_in_flight == 0)
                assert server._http_stats.num_streams == server._http_stats.num_sockets == 0

    run(main())


def test_leaving_within_the_request_starts_nothing():
    """A request that never ends is none, whatever part of it came."""

    async def main() -> None:
        engine = FakeEngine()
        async with serving({"m": engine}) as server:
            for path, body in STREAMS.items():
                data = json.dumps(body).encode()
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
                whole = f"{head}\r\n\r\n".encode() + data
                for cut in range(1, len(whole), 11):
                    client = await Raw.open(server.url)
                    client.writer.write(whole[:cut])
                    await client.writer.drain()
                    if cut % 2:
                        client.leave()
                    else:
                        client.writer.close()
                        await client.writer.wait_closed()
            await until(lambda: not server.server_state.connections)
            assert server._http_stats.num_in_flight == 0
            assert not engine.prompts

    run(main())


@pytest.mark.parametrize(
    ("kind", "path"), [("http", "/api/chat"), ("http", "/v1/responses"), ("ws", "/ws"),
                       ("ws", "/v1/responses")],
)  # fmt: skip
def test_a_client_that_does_not_read_is_dropped(
    kind: str, path: str, monkeypatch: pytest.MonkeyPatch
):
    """Its generation ends, and nothing is kept for it."""
    monkeypatch.setattr(fake, "PIECES", [b"", b"x" * 5000, b"y" * 5000])  # buffers hold megabytes

    async def main() -> None:
        engine = FakeEngine(ENDLESS)
        async with serving({"m": engine}, stall_timeout_s=0.2) as server:
            client = await Raw.open(server.url)
            client.writer.transport.pause_reading()
            if kind == "http":
                await client.post(path, STREAMS[path])
            else:
                client.writer.transport.resume_reading()
                await client.talk(path, SOCKETS[path])
                client.writer.transport.pause_reading()
            await until(lambda: engine.num_running == 1)
            await until(lambda: engine.num_running == 0, timeout_s=20)
            assert engine.num_steps < len(ENDLESS)
            client.leave()

    run(main())


@pytest.mark.parametrize("path", SOCKETS)
def test_a_half_open_socket_is_found_by_pings(path: str, monkeypatch: pytest.MonkeyPatch):
    """A peer that vanished without a word answers no ping: its generation ends."""
    monkeypatch.setattr(run_module, "_PING_S", 0.1)

    async def main() -> None:
        engine = FakeEngine(TOKENS, is_gated=True)
        async with serving({"m": engine}) as server:
            client = await Raw.open(server.url)
            await client.talk(path, SOCKETS[path])
            await until(lambda: engine.num_running == 1)
            async with websockets.connect(server.url.replace("http", "ws") + "/ws") as alive:
                await until(lambda: engine.num_running == 0)
                assert server._http_stats.num_sockets == 1
                await asyncio.wait_for(alive.ping(), 5)
            client.leave()

    run(main())


def test_clients_that_trickle_hold_up_nobody():
    """Thirty that send a byte at a time, and header floods, while another one is served."""

    async def main() -> None:
        engine = FakeEngine()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
        async with serving({"m": engine}, header_timeout_s=1.0, body_timeout_s=1.0) as server:

            async def trickle(start: bytes) -> bytes:
                """Until it is cut off; what was answered."""
                client = await Raw.open(server.url)
                client.writer.write(start)
                try:
                    while not client.reader.at_eof() and not client.writer.is_closing():
                        client.writer.write(b"a")
                        await client.writer.drain()
                        await asyncio.sleep(0.05)
                    return await client.reader.read()
                except ConnectionError:
                    return b""
                finally:
                    client.leave()

            async def flood(number: int) -> bytes:
                client = await Raw.open(server.url)
                lines = b"".join(b"X-%d: %s\r\n" % (i, b"a" * number * 100) for i in range(150))
                client.writer.write(
                    b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n"
                )
                try:
                    return await asyncio.wait_for(client.reader.readline(), 5)
                except ConnectionError:
                    return b"HTTP/1.1 431 closed before it was read\r\n"
                finally:
                    client.leave()

            slow = [asyncio.ensure_future(trickle(head[: 3 * i])) for i in range(30)]
            floods = [asyncio.ensure_future(flood(number)) for number in range(1, 9)]
            async with httpx.AsyncClient(base_url=server.url) as client:
                for _ in range(10):
                    reply = await client.post("/v1/completions", json={**TEXT, "max_tokens": 4})
                    assert reply.json()["choices"][0]["text"] == "Hello world!"
            assert not any(task.done() for task in slow)
            assert {line.split()[1] for line in await asyncio.gather(*floods)} <= {b"431", b"400"}
            replies = await asyncio.wait_for(asyncio.gather(*slow), 10)
            assert not any(reply.startswith(b"HTTP/1.1 2") for reply in replies)
            await until(lambda: not server.server_state.connections)

    run(main())
