"""What every request must satisfy before any route sees it.

Decisions use the raw path and headers of the ASGI scope, never a URL rebuilt
from the client's `Host` header.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from quintet.server.auth import Client, check_key
from quintet.server.cors import allowed_origin, check_origin, preflight, reply_headers
from quintet.server.errors import HTTPRefusal
from quintet.server.exchange import current
from quintet.server.health import HealthMonitor
from quintet.server.rate_limits import RateLimiter
from quintet.server.replies import ErrorWriter
from quintet.server.settings import Settings, is_loopback

_log = logging.getLogger(__name__)

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024
MAX_TARGET_BYTES = 16 * 1024  # path and query of the request line
# Asked by probes that hold no key.
OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/health/startup"})
_WORK_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_RAW_BODIES = "/api/blobs/"
# curl's own type is among them: examples everywhere send JSON under it.  A browser may send that
# one, or none, from any page without asking first; `check_origin` sees to those.
_JSON_TYPE = re.compile(
    rb"(application/(?:[a-z0-9.+-]+\+)?json|application/x-www-form-urlencoded)[ \t]*(;.*)?",
    re.IGNORECASE,
)


class Guard:
    """ASGI middleware: sizes, Host, Origin, key, drain and rate limits.

    Args:
        app: what it stands before.
        settings: limits.
        errors: writes the refusals.
        health: tells when nothing new is taken.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, errors: ErrorWriter, health: HealthMonitor
    ) -> None:
        self._app = app
        self._settings = settings
        self._errors = errors
        self._health = health
        self._limiter = RateLimiter(settings.rate_limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        extra: list[tuple[bytes, bytes]] = []
        is_started = False

        async def guarded_send(message: Message) -> None:
            nonlocal is_started
            if message["type"] in _STARTS:
                is_started = True
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            host = check_request(scope, self._settings)
            origin = allowed_origin(scope["headers"], self._settings)
            if origin is not None:
                extra += reply_headers(origin)
                answer = preflight(scope["headers"], scope.get("method", ""))
                if answer is not None:
                    await answer(scope, receive, guarded_send)
                    return
            check_origin(scope["headers"], _method(scope), host, self._settings)
            with self._admit(scope, extra):
                await self._app(scope, receive, guarded_send)
        except HTTPRefusal as refusal:
            await self._refuse(refusal, scope, receive, guarded_send)
        except Exception as error:
            # A bug.  Its text may name files or hold other people's data: it stays in the log.
            _log.exception("request %s failed", scope["state"]["request_id"])
            if is_started:
                raise
            await self._refuse(error, scope, receive, guarded_send)

    @contextlib.contextmanager
    def _admit(self, scope: Scope, extra: list[tuple[bytes, bytes]]) -> Iterator[None]:
        """Ask for the key, and count the request on its owner's account while it runs."""
        if scope["path"] in OPEN_PATHS:
            yield
            return
        client = self._client(scope)
        exchange = current()
        if exchange is not None:
            exchange.client, exchange.cache_salt = client.label, client.cache_salt
        if self._health.is_draining:
            raise HTTPRefusal(
                503,
                "the server is shutting down",
                code="shutting_down",
                headers={"Retry-After": "5", "Connection": "close"},
            )
        is_socket = scope["type"] == "websocket"
        if not is_socket and scope["method"] not in _WORK_METHODS:
            yield
            return
        _check_body_type(scope)
        if exchange is not None:
            exchange.take_tokens = lambda count: self._limiter.take_tokens(client.identity, count)
            if is_socket:  # its requests come one by one, within it
                exchange.admit = lambda: self._limiter.admit(client.identity)
        door = self._limiter.admit_socket if is_socket else self._limiter.admit
        with door(client.identity) as headers:
            extra += [(name.encode(), value.encode()) for name, value in headers.items()]
            yield

    def _client(self, scope: Scope) -> Client:
        address = (scope.get("client") or ("", 0))[0]
        is_counted = not is_loopback(address)  # a proxy on this machine speaks for many
        if is_counted:
            self._limiter.check_address(address)
        try:
            return check_key(scope["headers"], self._settings.keys, scope["path"], address)
        except HTTPRefusal as refusal:
            if is_counted and refusal.status == 401:
                self._limiter.count_failure(address)
            raise

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket is refused before its handshake is accepted, so by a reply as well."""
        response = self._errors.response(scope["path"], error)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)


_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


def check_request(scope: Scope, settings: Settings) -> str:
    """Refuse what is too large or comes under a foreign name; the Host otherwise.

    Raises:
        HTTPRefusal: with the status of the first check that failed.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    num_bytes = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or num_bytes > MAX_HEADER_BYTES:
        raise HTTPRefusal(431, "too many request headers", code="headers_too_large")
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        raise HTTPRefusal(414, "the request target is too long", code="target_too_long")
    return _check_host(headers, settings)


def _check_host(headers: list[tuple[bytes, bytes]], settings: Settings) -> str:
    """An exact allow-list of names stops DNS rebinding: a page that resolves its own name to us."""
    values = [value for name, value in headers if name == b"host"]
    host = values[0].decode("latin-1").lower() if len(values) == 1 else ""
    match = _HOST.fullmatch(host)
    if match is None:
        raise HTTPRefusal(400, "expected one well-formed Host header", code="invalid_host")
    if match["name"].strip("[]") not in settings.allowed_hosts:
        raise HTTPRefusal(
            403, "this Host name is not served; see --allowed-host", code="host_not_allowed"
        )
    return host


def _check_body_type(scope: Scope) -> None:
    """JSON is all that is read, whole and as it is; nothing is guessed from a body."""
    if scope["type"] != "http" or scope["path"].startswith(_RAW_BODIES):
        return
    for name, value in scope["headers"]:
        if name == b"content-type" and not _JSON_TYPE.fullmatch(value.strip()):
            raise HTTPRefusal(
                415, "expected Content-Type: application/json", code="unsupported_media_type"
            )
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise HTTPRefusal(
                415, "expected a body without Content-Encoding", code="unsupported_encoding"
            )


def _method(scope: Scope) -> str:
    return "WEBSOCKET" if scope["type"] == "websocket" else str(scope["method"])
