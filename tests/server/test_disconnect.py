"""Clients that leave: their work ends within a step, whatever it was doing."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import pytest

from .fake import FakeEngine
from .harness import run, serving, until

STREAM = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
WHOLE = {**STREAM, "stream": False}
TOKENS = (1, 2) * 50


async def send(
    url: str, body: dict[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request by hand and return the open connection."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    data = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        + f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("num_steps", [0, 1, 2, 10])
@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
@pytest.mark.parametrize("n", [1, 3])
def test_leaving_ends_the_generation(body: dict[str, object], num_steps: int, n: int):
    """A client that leaves before, at or after any token ends its generation within one step."""

    async def main() -> None:
        engine = FakeEngine(TOKENS, is_gated=True)
        async with serving({"m": engine}) as server:
            _, writer = await send(server.url, {**body, "n": n})
            await until(lambda: engine.num_running == 1)
            engine.permit(num_steps)
            await until(lambda: engine.num_steps == num_steps)
            writer.transport.abort()
            await until(lambda: engine.num_running == 0)
            assert engine.num_steps == num_steps
            assert engine.num_aborted == 1

    run(main())


def test_leaving_hurts_nobody_else():
    """Another client's stream goes on to its end."""

    async def main() -> None:
        engine = FakeEngine((1, 2, 3, 4), is_gated=True)
        async with serving({"m": engine}) as server:
            stayer, stayer_writer = await send(server.url, STREAM)
            _, leaver = await send(server.url, STREAM)
            await until(lambda: engine.num_running == 2)
            engine.permit(4)
            await until(lambda: engine.num_steps == 4)
            leaver.close()
            await until(lambda: engine.num_running == 1)
            engine.permit(100)
            text = await asyncio.wait_for(stayer.readuntil(b"data: [DONE]\n\n"), 5)
            assert b'"finish_reason":"stop"' in text
            assert engine.num_aborted == 1
            stayer_writer.close()

    run(main())


def test_silence_is_broken_by_comments():
    """While a long prompt is computed the stream says that it is alive."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with serving({"m": engine}, keep_alive_s=0.02) as server:
            reader, writer = await send(server.url, STREAM)
            head = await asyncio.wait_for(reader.readuntil(b": keep-alive\n\n"), 5)
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert b"data:" not in head
            engine.permit(100)
            rest = await asyncio.wait_for(reader.readuntil(b"[DONE]\n\n"), 5)
            assert rest.count(b'"role":"assistant"') == 1
            writer.close()

    run(main())


def test_client_that_does_not_read_is_dropped():
    """A reader that stalls is cut off, and its generation ends."""

    async def main() -> None:
        engine = FakeEngine((1, 2) * 100_000)
        async with serving({"m": engine}, stall_timeout_s=0.2) as server:
            _, writer = await send(server.url, {**STREAM, "logprobs": True})
            await until(lambda: engine.num_running == 1)
            await until(lambda: engine.num_running == 0, timeout_s=20)
            assert engine.num_aborted == 1
            writer.transport.abort()

    run(main())


def test_slow_headers_are_dropped():
    """A connection that never finishes its headers is closed."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}, header_timeout_s=0.1) as server:
            address = urlsplit(server.url)
            for start in (b"", b"GET /health HTTP/1.1\r\nHost: loc"):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                writer.write(start)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await asyncio.wait_for(reader.readexactly(1), 5)
                writer.close()

    run(main())


def test_slow_headers_on_a_used_connection_are_dropped():
    """The deadline also holds for the second request of a connection."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}, header_timeout_s=0.2) as server:
            address = urlsplit(server.url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 5)
            writer.write(b"GET /hea")
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 5)
            writer.close()

    run(main())


def test_slow_body_is_answered_and_closed():
    """A body that trickles in too slowly is a 408 on a closing connection."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}, body_timeout_s=0.1) as server:
            address = urlsplit(server.url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
            )
            reply = await asyncio.wait_for(reader.read(), 5)
            assert reply.startswith(b"HTTP/1.1 408 ")
            writer.close()

    run(main())


def test_chunked_bodies_have_the_same_limit():
    """A chunked body without a length is refused while it is read."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}, max_body_bytes=1000) as server:
            address = urlsplit(server.url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + b"[" * 256 + b"\r\n"
            )
            for _ in range(3):
                writer.write(b"100\r\n" + b"[" * 256 + b"\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 413 ")
            writer.close()

    run(main())


def test_connections_of_one_address_are_capped():
    """Of another machine; what comes from this one may be a proxy, which speaks for many."""

    class Transport(asyncio.Transport):
        is_aborted = False

        def __init__(self, address: str) -> None:
            super().__init__({"peername": (address, 1), "sockname": ("192.0.2.9", 2)})

        def abort(self) -> None:
            self.is_aborted = True

        def is_closing(self) -> bool:
            return self.is_aborted

        close = abort

    async def main() -> None:
        async with serving(
            {"m": FakeEngine()}, max_connections_per_address=2, header_timeout_s=0.01
        ) as server:
            state = {"config": server.config, "server_state": server.server_state, "app_state": {}}
            for address, outcomes in (
                ("192.0.2.1", [False, False, True]),
                ("192.0.2.2", [False]),
                ("127.0.0.1", [False] * 4),
            ):
                for outcome in outcomes:
                    protocol = server.config.http_protocol_class(**state)
                    transport = Transport(address)
                    protocol.connection_made(transport)
                    assert transport.is_aborted == outcome, address
            for protocol in list(server.server_state.connections):
                protocol.connection_lost(None)

    run(main())


def test_connections_are_capped():
    """Beyond the cap a connection is dropped at once; the others stay."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}, max_connections=2) as server:
            address = urlsplit(server.url)
            connections = [
                await asyncio.open_connection(address.hostname, address.port) for _ in range(3)
            ]
            reader, writer = connections[2]
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 5)
            reader, writer = connections[0]
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")
            for _, writer in connections:
                writer.close()

    run(main())
