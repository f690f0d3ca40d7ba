"""Who asks: by API key, which is asked for everywhere but on the open paths."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quintet.server.errors import HTTPRefusal
from quintet.server.keys import ApiKey, find_key, scope_of

_SALT: Final = secrets.token_bytes(16)  # a hash of an address without one is soon reversed


@dataclass(frozen=True, slots=True)
class Client:
    """
    Who a request comes from.

    Args:
        identity: of its key or, without one, its address; for tables.
        label: for the log, where neither may stand.
        cache_salt: of its key; empty without one.
    """

    identity: bytes
    label: str
    cache_salt: str = ""


def check_key(
    headers: list[tuple[bytes, bytes]], keys: Sequence[ApiKey], path: str, address: str
) -> Client:
    """The client, by `Authorization: Bearer KEY` or `X-Api-Key: KEY`; anyone, when no key is set.

    Raises:
        HTTPRefusal: 401 when no accepted key was sent, 403 when it does not open this path.
    """
    if not keys:
        return Client(address.encode(), _hashed(address.encode())[:12])
    key = find_key(_key(headers), keys)
    if key is None:
        raise HTTPRefusal(
            401,
            "expected a valid API key in the Authorization header: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    scope = scope_of(path)
    if scope not in key.scopes:
        raise HTTPRefusal(
            403, f"this key does not have the scope {scope!r}", code="insufficient_scope"
        )
    return Client(key.digest, key.name or _hashed(key.digest)[:12], _hashed(key.digest))


def _hashed(identity: bytes) -> str:
    return hmac.new(_SALT, identity, hashlib.sha256).hexdigest()


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
