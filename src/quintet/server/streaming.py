"""Streamed replies: one response that sends frames, keeps alive, and notices who leaves.

The first frame is awaited before the status is sent, so that a request refused
at admission is a real HTTP error.  A prefill longer than the keep-alive
interval commits to 200 and, where the format has a way to say nothing, says so.

Sources: WHATWG HTML, section 9.2 "Server-sent events"; NDJSON 1.0 (github.com/ndjson/ndjson-spec).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quintet.server.disconnect import cancel, wait_for_disconnect

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """How frames follow each other.

    Args:
        media_type: of the reply.
        keep_alive: sent into a silence; None where the format has no such thing.
    """

    media_type: str
    keep_alive: bytes | None = None


EVENTS = FrameFormat("text/event-stream; charset=utf-8", b": keep-alive\n\n")
NDJSON = FrameFormat("application/x-ndjson")


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event carrying JSON."""
    line = b"" if name is None else b"event: " + name.encode() + b"\n"
    return line + b"data: " + json_bytes(data) + b"\n\n"


def ndjson_line(data: Any) -> bytes:
    """One line carrying JSON."""
    return json_bytes(data) + b"\n"


class FrameStream(Response):
    """A response made of the frames an async generator yields.

    Args:
        frames: encoded; closed as soon as the client leaves.
        error_frame: how an error after the first byte is told to the client.
        keep_alive_s: silence after which the format's keep-alive is sent.
        format: how frames follow each other.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        error_frame: Callable[[Exception], bytes],
        keep_alive_s: float,
        format: FrameFormat = EVENTS,
    ) -> None:
        super().__init__()
        self._frames = frames
        self._error_frame = error_frame
        self._keep_alive_s = keep_alive_s
        self._format = format
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream.

        Raises:
            ClientDisconnect: the client left before the first byte was sent.
            Exception: whatever `frames` raised before then.
        """
        gone = asyncio.ensure_future(wait_for_disconnect(receive))
        try:
            while (frame := await self._next_frame(gone, send)) is not None:
                await self._write(send, frame)
        except Exception as error:
            if not self._is_started:
                raise
            if isinstance(error, ClientDisconnect):
                return
            await self._write(send, self._error_frame(error))
        finally:
            await cancel(gone)
            await self._frames.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next_frame(self, gone: asyncio.Future[None], send: Send) -> bytes | None:
        """The next frame, or None at the end; comments are sent while it is awaited."""
        frame: asyncio.Future[bytes | None] = asyncio.ensure_future(_next(self._frames))
        try:
            while True:
                futures: set[asyncio.Future[Any]] = {frame, gone}
                await asyncio.wait(
                    futures,
                    timeout=self._keep_alive_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone.done():
                    raise ClientDisconnect
                if frame.done():
                    return frame.result()
                if self._format.keep_alive is not None:
                    await self._write(send, self._format.keep_alive)
        finally:
            await cancel(frame)

    async def _write(self, send: Send, data: bytes) -> None:
        if not self._is_started:
            self._is_started = True
            headers = [
                (b"content-type", self._format.media_type.encode()),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),  # nginx would collect the tokens into blocks
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def _next(frames: AsyncGenerator[bytes, None]) -> bytes | None:
    try:
        return await anext(frames)
    except StopAsyncIteration:
        return None


def json_bytes(data: Any) -> bytes:
    """JSON in one line, as UTF-8."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
