"""WebSockets on which nothing is said: closed, so that they do not hold a place for ever.

Peers that vanish are found by uvicorn's pings; this is about those that answer pings and say
nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Message, Receive, Send

from quintet.server.disconnect import cancel

_GOING_AWAY = 1001  # RFC 6455, section 7.4.1


class IdleSocket:
    """
    One WebSocket, closed after a silence.

    Args:
        receive, send: of the connection.
        idle_s: how long neither side may say anything.
        is_busy: whether the server works on an answer; then silence is no idleness.
    """

    def __init__(
        self, receive: Receive, send: Send, idle_s: float, is_busy: Callable[[], bool]
    ) -> None:
        self._receive = receive
        self._send = send
        self._idle_s = idle_s
        self._is_busy = is_busy
        self._heard = asyncio.Event()
        self._is_closed = False

    async def run(self, app: Callable[[Receive, Send], Awaitable[None]]) -> None:
        """Serve the connection; the app sees an idle one as a client that has left."""
        try:
            await app(self._next_message, self._pass_on)
        finally:
            self._is_closed = True

    async def _next_message(self) -> Message:
        message = asyncio.ensure_future(self._receive())
        heard = asyncio.ensure_future(self._heard.wait())
        try:
            while not message.done():
                self._heard.clear()
                heard = heard if not heard.done() else asyncio.ensure_future(self._heard.wait())
                done, _ = await asyncio.wait(
                    {message, heard}, timeout=self._idle_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done and not self._is_busy():
                    await self._pass_on(
                        {"type": "websocket.close", "code": _GOING_AWAY, "reason": "idle"}
                    )
                    return {"type": "websocket.disconnect", "code": _GOING_AWAY}
            return message.result()
        finally:
            await cancel(message, heard)

    async def _pass_on(self, message: Message) -> None:
        self._heard.set()
        if not self._is_closed:
            self._is_closed = message["type"] == "websocket.close"
            await self._send(message)
