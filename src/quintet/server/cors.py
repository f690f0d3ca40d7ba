"""Which web pages may use the server: none but its own, unless an exact origin was allowed.

Source: WHATWG Fetch, section 3.2 "HTTP CORS protocol".
"""

from __future__ import annotations

from starlette.responses import Response

from quintet.server.errors import HTTPRefusal
from quintet.server.settings import Settings

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Api-Key, X-Request-Id",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = (
    "X-Request-Id, Retry-After, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-tokens"
)


def allowed_origin(headers: list[tuple[bytes, bytes]], settings: Settings) -> str | None:
    """The request's origin if it is one of those allowed, as the browser wrote it."""
    origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
    is_allowed = len(origins) == 1 and not settings.cors_origins.isdisjoint({*origins, "*"})
    return origins[0] if is_allowed else None


def check_origin(
    headers: list[tuple[bytes, bytes]], method: str, host: str, settings: Settings
) -> None:
    """Browsers name the page a write comes from; a foreign one may not send any.

    Args:
        method: "WEBSOCKET" for a handshake, which is a GET, but no browser asks before it sends
            one for another page.

    Raises:
        HTTPRefusal: 403.
    """
    if method in _SAFE_METHODS or allowed_origin(headers, settings) is not None:
        return
    for name, value in headers:
        if name == b"origin":
            origin = value.decode("latin-1").lower()
            if origin not in (f"http://{host}", f"https://{host}"):
                raise HTTPRefusal(
                    403, "requests from other web pages are refused", code="origin_not_allowed"
                )


def preflight(headers: list[tuple[bytes, bytes]], method: str) -> Response | None:
    """The answer to a browser that asks before it sends, if this is such a question.

    It carries no key, so it must come before keys are asked for; the request itself needs one.
    """
    names = {name for name, _ in headers}
    if method != "OPTIONS" or b"access-control-request-method" not in names:
        return None
    return Response(status_code=204, headers=_PREFLIGHT)


def reply_headers(origin: str) -> list[tuple[bytes, bytes]]:
    """What lets the page of an allowed origin read a reply."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _EXPOSED.encode()),
        (b"vary", b"Origin"),
    ]
