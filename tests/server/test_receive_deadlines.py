"""Clients that send too slowly: whatever they stop in, their connection ends, and nobody waits."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from .fake import FakeEngine
from .harness import run, serving

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LONG = b"Content-Length: 1000\r\n\r\n"
UPGRADE = (
    b"GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
WHOLE = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
# What is sent at once, and what then comes again and again, a byte at a time.
SLOW = {
    "nothing at all": (b"", b""),
    "request line": (b"POST /v1/comp", b"x"),
    "headers": (HEAD, b"a"),
    "body": (HEAD + LONG, b" "),
    "chunked body": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "body of a path that is none": (b"POST /x HTTP/1.1\r\nHost: localhost\r\n" + LONG, b" "),
    "body of a GET": (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + LONG, b" "),
    "body that is refused": (HEAD.replace(b"json", b"xml") + LONG, b" "),
    "second request": (WHOLE + b"GET /v1/mod", b"x"),
    "nothing after a request": (WHOLE, b""),
    "handshake": (UPGRADE[:60], b"a"),
    "message of a WebSocket": (UPGRADE % b"v1/responses" + b"\x81\xfe\x03\xe8\0\0\0\0", b"x"),
    "message of Woolly's": (UPGRADE % b"woolly/ws" + b"\x81\xfe\x03\xe8\0\0\0\0", b"x"),
}


@pytest.mark.parametrize("part", SLOW)
def test_who_sends_too_slowly_is_dropped(part: str):
    """A byte now and then holds no connection; meanwhile others are served."""
    first, more = SLOW[part]

    async def main() -> None:
        limits = {"header_timeout_s": 0.3, "body_timeout_s": 0.3, "idle_timeout_s": 1.0}
        async with (
            serving({"m": FakeEngine()}, socket_idle_s=0.3, **limits) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            port = int(server.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            started_s = time.monotonic()
            ended = asyncio.ensure_future(reader.read())
            writer.write(first)
            while not ended.done():
                assert time.monotonic() - started_s < 20, "still open"
                if more and not writer.is_closing():
                    writer.write(more)
                await asyncio.wait({ended}, timeout=0.05)
            writer.close()
            assert ended.exception() is None or isinstance(ended.exception(), ConnectionError)
            assert (await client.get("/v1/models")).is_success

    run(main())
