"""API keys: who they belong to, and what they open.

Kept as SHA-256.  `inference` is all that asks a model or reads what models there are, `manage`
changes the store or which model is the current one, `metrics` reads `/metrics`.  What a user's key
opens does not include `manage` unless it is said: who may ask a model may not delete it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from quintet.errors import RequestError

_log = logging.getLogger(__name__)

Scope: TypeAlias = Literal["inference", "manage", "metrics"]
ALL_SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))
USER_SCOPES: Final[frozenset[Scope]] = ALL_SCOPES - {"manage"}
MAX_KEYS: Final = 10_000
_MANAGE_PATHS: Final = ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete",
                        "/api/blobs", "/api/models/load", "/api/models/unload",
                        "/woolly/api/models/load", "/woolly/api/models/unload")  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """
    A key that is accepted.

    Args:
        digest: its SHA-256.
        name: what the log calls its owner; empty for none.
        scopes: what it opens.
    """

    digest: bytes
    name: str = ""
    scopes: frozenset[Scope] = ALL_SCOPES

    @classmethod
    def of(cls, key: str, name: str = "", scopes: frozenset[Scope] = ALL_SCOPES) -> ApiKey:
        """The key that has this text.

        Raises:
            RequestError: it is empty.
        """
        return cls(key_digest(key.encode()), name, scopes)


def key_digest(key: bytes) -> bytes:
    """SHA-256 of an API key: what the server keeps instead of the key."""
    if not key:
        raise RequestError("an API key must not be empty", parameter="api_key")
    return hashlib.sha256(key).digest()


def find_key(given: bytes, keys: Sequence[ApiKey]) -> ApiKey | None:
    """The accepted key that this is, in a time that tells nothing about any of them."""
    digest = key_digest(given) if given else b""
    found = None
    for key in keys:  # every one is compared, whole
        if hmac.compare_digest(digest, key.digest):
            found = key
    return found


def scope_of(path: str) -> Scope:
    """What a key must open for this path to answer."""
    if path == "/metrics":
        return "metrics"
    if any(path == begin or path.startswith(f"{begin}/") for begin in _MANAGE_PATHS):
        return "manage"
    return "inference"


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """
    Keys from a file: `KEY [NAME [SCOPE,SCOPE...]]` a line, `#` begins a comment line.  Without
    scopes a key opens all but `manage`.

    Raises:
        RequestError: a line is none of these, or there is no key; no key is repeated in its text.
        OSError: the file cannot be read.
    """
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("%s may be read by other users: chmod 600", path)
    keys = tuple(_keys(path))
    if not keys or len(keys) > MAX_KEYS:
        raise RequestError(
            f"expected 1 to {MAX_KEYS} keys, found {len(keys)}", parameter="api_key_file"
        )
    return keys


def _keys(path: Path) -> Iterator[ApiKey]:
    names: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        key, name, scopes = (*fields, "", "")[:3]
        wanted = frozenset(scopes.split(",")) if scopes else USER_SCOPES
        known = frozenset(scope for scope in ALL_SCOPES if scope in wanted)
        fault = ""
        if len(fields) > 3:
            fault = "a key, a name and scopes, found more"
        elif name and not _NAME.fullmatch(name):
            fault = "a name of 1 to 64 letters, digits, dots, dashes"
        elif name in names:
            fault = "names that differ"
        elif known != wanted:
            fault = f"scopes among {', '.join(sorted(ALL_SCOPES))}"
        if fault:
            raise RequestError(f"line {number}: expected {fault}", parameter="api_key_file")
        names |= {name} if name else set()
        yield ApiKey.of(key, name, known)
