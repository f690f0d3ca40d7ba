"""uvicorn's protocols, HTTP/1.1 and WebSocket, with the deadlines and the cap they lack.

uvicorn bounds an idle keep-alive connection, but not how long a client may
take over its headers, nor how long it may refuse to read a reply.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from quintet.server.settings import Settings, is_loopback

# In the state of a WebSocket's scope: an asyncio.Event, put there by an app that wants to end its
# work before the server stops, and then closes the connection itself.
DRAINING: Final = "quintet.draining"


def bounded_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """A protocol class for `uvicorn.Config(http=...)` under these settings."""

    class BoundedProtocol(H11Protocol):
        _headers_due: asyncio.TimerHandle | None = None
        _write_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections or self._is_one_too_many():
                transport.abort()
            else:
                self._headers_due = self._abort_after(settings.header_timeout_s)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.get_protocol() is not self:  # it has become a WebSocket
                _cancel(self._headers_due)
            elif self.cycle is not None and not self.cycle.response_complete:
                _cancel(self._headers_due)
                self._headers_due = None
            elif self._headers_due is None:  # the next request on a kept-alive connection
                self._headers_due = self._abort_after(settings.header_timeout_s)

        def _is_one_too_many(self) -> bool:
            """A proxy on this machine may open as many as it likes: it speaks for others."""
            address = self.client[0] if self.client else ""
            if is_loopback(address):
                return False
            clients = (getattr(connection, "client", None) for connection in self.connections)
            num = sum(client is not None and client[0] == address for client in clients)
            return num > settings.max_connections_per_address

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_due = self._abort_after(settings.stall_timeout_s)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._write_due)

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._headers_due)
            _cancel(self._write_due)
            super().connection_lost(exc)

        def _abort_after(self, seconds: float) -> asyncio.TimerHandle:
            # An aborted transport reaches the app as http.disconnect, like any client that leaves.
            return self.loop.call_later(seconds, self.transport.abort)

    return BoundedProtocol


def bounded_websocket(settings: Settings) -> type[asyncio.Protocol]:
    """A protocol class for `uvicorn.Config(ws=...)` under these settings."""

    class BoundedWebSocket(WebSocketsSansIOProtocol):
        _write_due: asyncio.TimerHandle | None = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_due = self.loop.call_later(settings.stall_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._write_due)

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._write_due)
            super().connection_lost(exc)

        def shutdown(self) -> None:
            if not begin_drain(self):
                super().shutdown()

    return BoundedWebSocket


def begin_drain(connection: object) -> bool:
    """Tell a WebSocket whose app wants to know that the server stops; whether it did."""
    if not isinstance(connection, WebSocketsSansIOProtocol) or not connection.handshake_complete:
        return False
    draining = connection.scope["state"].get(DRAINING)
    if not isinstance(draining, asyncio.Event):
        return False
    draining.set()
    return True


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
