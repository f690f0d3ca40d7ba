"""The outermost layer: every request gets an id, is counted, timed and logged once, at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quintet.server.exchange import Exchange, begin
from quintet.server.http_stats import UNMATCHED, HTTPStats

_log = logging.getLogger(__name__)

_STREAM_TYPES = (b"text/event-stream", b"application/x-ndjson")
_PROBES = ("/health", "/metrics")  # asked every few seconds: no news


class Observer:
    """ASGI middleware: `X-Request-Id` on every reply, counters, and the access log.

    Args:
        app: what it stands before.
        stats: counted into.
        routes: of the app; tell what a request wanted that did not get as far.
        aliases: other paths of some.
    """

    def __init__(
        self,
        app: ASGIApp,
        stats: HTTPStats,
        routes: Sequence[BaseRoute],
        aliases: Mapping[str, str],
    ) -> None:
        self._app = app
        self._stats = stats
        self._routes = routes
        self._aliases = aliases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        exchange = begin(scope["headers"])
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        stats, is_socket = self._stats, scope["type"] == "websocket"
        started_s = time.monotonic()

        async def watched_send(message: Message) -> None:
            self._watch(message, exchange)
            await send(message)

        stats.num_in_flight += 1
        try:
            await self._app(scope, receive, watched_send)
        finally:
            stats.num_in_flight -= 1
            stats.num_sockets -= is_socket and exchange.status == 101
            stats.num_streams -= exchange.is_stream
            duration_s = time.monotonic() - started_s
            method = "WEBSOCKET" if is_socket else scope["method"]
            route = self._template(scope)
            stats.end(exchange, method, route, duration_s)
            _write(exchange, method, route, duration_s)

    def _template(self, scope: Scope) -> str:
        """The path of the route that was taken, or would have been: there are few of them."""
        route = scope.get("route")
        if route is None:
            path = scope["path"]
            wanted = {**scope, "path": self._aliases.get(path, path)}
            found = (r for r in self._routes if r.matches(wanted)[0] is not Match.NONE)
            route = next(found, None)
        return getattr(route, "path", UNMATCHED)

    def _watch(self, message: Message, exchange: Exchange) -> None:
        """Note the reply's beginning, and put the id into its headers."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            exchange.status = message["status"]
            headers = list(message.get("headers", ()))
            if any(n == b"content-type" and v.startswith(_STREAM_TYPES) for n, v in headers):
                exchange.is_stream = True
                self._stats.num_streams += 1
        elif kind == "websocket.accept":
            exchange.status = 101
            headers = list(message.get("headers", ()))
            self._stats.num_sockets += 1
        elif kind == "websocket.close" and exchange.status == 499:
            exchange.status = (
                403  # what a server makes of a handshake closed before it was accepted
            )
            return
        else:
            return
        message["headers"] = [*headers, (b"x-request-id", exchange.request_id.encode())]


def _write(exchange: Exchange, method: str, route: str, duration_s: float) -> None:
    """One line.  The route is ours, as all of it is but the method; a path is the client's."""
    is_news = exchange.status not in (200, 503) or not route.startswith(_PROBES)
    level = logging.INFO if is_news else logging.DEBUG
    if not _log.isEnabledFor(level):
        return
    fields = {
        "method": method[:20],
        "route": route,
        "status": exchange.status,
        "duration_ms": round(duration_s * 1000, 3),
        "model": exchange.model,
        "prompt_tokens": exchange.num_prompt_tokens,
        "generated_tokens": exchange.num_generated_tokens,
        "client": exchange.client,
    }
    _log.log(level, "request", extra={"fields": fields})
