"""What every request must satisfy before any route sees it.

Decisions use the raw path and headers of the ASGI scope, never a URL rebuilt
from the client's `Host` header.
"""

from __future__ import annotations

import logging
import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from quintet.server.auth import check_key
from quintet.server.errors import HTTPRefusal
from quintet.server.replies import ErrorWriter
from quintet.server.settings import Settings

_log = logging.getLogger(__name__)

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024
MAX_TARGET_BYTES = 16 * 1024  # path and query of the request line
OPEN_PATHS = frozenset({"/health"})  # asked by probes that hold no key
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


class Guard:
    """ASGI middleware: sizes, Host, Origin and key; adds `X-Request-Id` to every reply.

    Args:
        app: what it stands before.
        settings: limits.
        errors: writes the refusals.
    """

    def __init__(self, app: ASGIApp, settings: Settings, errors: ErrorWriter) -> None:
        self._app = app
        self._settings = settings
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._guard_websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        is_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            check_request(scope, self._settings)
            await self._app(scope, receive, send_with_id)
        except HTTPRefusal as refusal:
            await self._errors.response(scope["path"], refusal)(scope, receive, send_with_id)
        except Exception as error:
            # A bug.  Its text may name files or hold other people's data: it stays in the log.
            _log.exception("request %s", request_id)
            if is_started:
                raise
            await self._errors.response(scope["path"], error)(scope, receive, send_with_id)

    async def _guard_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same checks before the handshake is accepted; a refusal is an HTTP reply."""
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        try:
            check_request(scope, self._settings)
        except HTTPRefusal as refusal:
            response = self._errors.response(scope["path"], refusal)
            await WebSocket(scope, receive, send).send_denial_response(response)
            return
        try:
            await self._app(scope, receive, send)
        except Exception:
            _log.exception("request %s", request_id)
            raise


def check_request(scope: Scope, settings: Settings) -> None:
    """Refuse what is too large, comes under a foreign name or page, or lacks a key.

    Raises:
        HTTPRefusal: with the status of the first check that failed.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    num_bytes = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or num_bytes > MAX_HEADER_BYTES:
        raise HTTPRefusal(431, "too many request headers", code="headers_too_large")
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        raise HTTPRefusal(414, "the request target is too long", code="target_too_long")
    host = _check_host(headers, settings)
    # A WebSocket handshake is a GET, but no browser asks before it sends one for another page.
    if scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS:
        _check_origin(headers, host)
    if scope["path"] not in OPEN_PATHS:
        check_key(headers, settings.key_digests)


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


def _check_origin(headers: list[tuple[bytes, bytes]], host: str) -> None:
    """Browsers name the page a write comes from; only pages of this very server may send one."""
    for name, value in headers:
        if name == b"origin":
            origin = value.decode("latin-1").lower()
            if origin not in (f"http://{host}", f"https://{host}"):
                raise HTTPRefusal(
                    403, "requests from other web pages are refused", code="origin_not_allowed"
                )
