"""What is learnt about one request while it is answered, for the log, the metrics and the limits.

The middleware that times requests does not know which model they asked for, nor how many tokens
they took; who knows is deep inside a dialect.  They meet in a context variable: tasks that a
request starts inherit it, other requests have another.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(slots=True)
class Exchange:
    """A request and what became of it.

    Args:
        request_id: given by the client, or made.
        client: who asked, by a name that tells neither key nor address.
        cache_salt: differs from key to key; empty without keys.
        model: the model that was used, if any.
        num_prompt_tokens, num_generated_tokens: of all its answers so far.
        num_ignored_fields: of its bodies, that are not known here.
        status: of the reply; 499 where the client left before it began.
        is_stream: the reply came in frames.
        take_tokens: takes tokens from what its client may use.
        admit: of a WebSocket, whose requests come within it: lets in one of them, or raises.
    """

    request_id: str
    client: str = ""
    cache_salt: str = ""
    model: str = ""
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_ignored_fields: int = 0
    status: int = 499
    is_stream: bool = False
    take_tokens: Callable[[int], None] | None = None
    admit: Callable[[], AbstractContextManager[object]] | None = None


_current: ContextVar[Exchange | None] = ContextVar("quintet_exchange", default=None)


def begin(headers: list[tuple[bytes, bytes]]) -> Exchange:
    """A new exchange, the current one of this task and those it starts."""
    exchange = Exchange(request_id_of(headers))
    _current.set(exchange)
    return exchange


def current() -> Exchange | None:
    """The exchange that this code works for; None outside of any."""
    return _current.get()


def current_request_id() -> str | None:
    """The id of the request that this code works for; None outside of any."""
    exchange = _current.get()
    return None if exchange is None else exchange.request_id


@contextlib.contextmanager
def using(model: str) -> Iterator[None]:
    """The current request uses this model until the block ends.

    Raises:
        HTTPRefusal: it came over a WebSocket, and its client has asked for too much.
    """
    exchange = _current.get()
    if exchange is not None:
        exchange.model = model
    admit = None if exchange is None else exchange.admit
    with contextlib.nullcontext() if admit is None else admit():
        yield


def cache_salt() -> str:
    """Of the client that this code works for; prefixes are shared by who has the same."""
    exchange = _current.get()
    return "" if exchange is None else exchange.cache_salt


def note_tokens(*, prompt: int = 0, generated: int = 0) -> None:
    """The current request took this many tokens more."""
    exchange = _current.get()
    if exchange is not None:
        exchange.num_prompt_tokens += prompt
        exchange.num_generated_tokens += generated
        if exchange.take_tokens is not None:
            exchange.take_tokens(prompt + generated)


def note_ignored(num_fields: int) -> None:
    """The current request has so many fields that nothing reads."""
    exchange = _current.get()
    if exchange is not None:
        exchange.num_ignored_fields += num_fields


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's `X-Request-Id` if it is one and can do no harm in a log, else a new one."""
    values = [value for name, value in headers if name == b"x-request-id"]
    if len(values) == 1 and _REQUEST_ID.fullmatch(values[0]):
        return values[0].decode()
    return secrets.token_hex(8)
