"""API keys: asked for everywhere but on the open paths, compared without telling time."""

from __future__ import annotations

import hmac

from quintet.server.errors import HTTPRefusal
from quintet.server.settings import key_digest


def check_key(headers: list[tuple[bytes, bytes]], digests: tuple[bytes, ...]) -> None:
    """Accept `Authorization: Bearer KEY` or `X-Api-Key: KEY`; anything goes when no key is set.

    Raises:
        HTTPRefusal: 401 when no accepted key was sent.
    """
    if not digests:
        return
    key = _key(headers)
    # Every digest is compared, whole, so that timing tells nothing about any of them.
    given = key_digest(key) if key else b""
    matches = [hmac.compare_digest(given, digest) for digest in digests]
    if not any(matches):
        raise HTTPRefusal(
            401,
            "expected a valid API key in the Authorization header: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _key(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The key as sent, or nothing, which is never an accepted key."""
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return key.strip()
    return b""
