"""Limits per client: requests and tokens per minute, and how many at a time.

Two token buckets each (the network's term: nothing to do with a model's tokens), which hold a
minute's worth and fill evenly.  A request is let in while there is a whole request, and anything
at all of tokens, in its buckets; the tokens it takes are known only as it runs, so they are taken
out then, and the next request waits for what was taken too much.

The headers are OpenAI's: x-ratelimit-{limit,remaining,reset}-{requests,tokens}.

Source: Turner 1986, "New directions in communications" (leaky bucket); RFC 6585, section 4 (429).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from quintet.errors import RequestError
from quintet.server.errors import HTTPRefusal

MAX_CLIENTS: Final = 4096
_PERIOD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RateLimits:
    """
    What one client may take; None is no limit.

    Args:
        requests_per_minute: that ask for work; reading lists is free.
        tokens_per_minute: of prompts and answers.
        max_concurrent: requests at a time.
        max_sockets: WebSockets at a time.
        failed_keys_per_minute: tries with a wrong key from one address that is not this machine.

    Raises:
        RequestError: a limit below 1.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    max_sockets: int | None = 16
    failed_keys_per_minute: int | None = 10

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"expected at least 1, found {value}", parameter=name)


@dataclass(slots=True)
class Bucket:
    """
    Fills evenly to its size within a minute; may be overdrawn.

    Args:
        size: the most it holds, and what flows in per minute.
        level: what it holds at `at_s`.
    """

    size: int
    level: float
    at_s: float

    def fill(self, now_s: float) -> None:
        """Let in what has come since."""
        gained = (now_s - self.at_s) * self.size / _PERIOD_S
        self.level, self.at_s = min(self.size, self.level + gained), now_s

    def wait_s(self, level: float) -> float:
        """Until it holds this much."""
        return max(0.0, (level - self.level) * _PERIOD_S / self.size)


@dataclass(slots=True)
class _Account:
    requests: Bucket | None
    tokens: Bucket | None
    num_running: int = 0
    num_sockets: int = 0


class RateLimiter:
    """
    Accounts of the clients seen of late, at most MAX_CLIENTS; methods belong to the event loop.

    Args:
        limits: of each client.
        clock: seconds that only go forward.
    """

    def __init__(self, limits: RateLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._accounts: OrderedDict[bytes, _Account] = OrderedDict()
        self._failures: OrderedDict[str, Bucket] = OrderedDict()

    @contextlib.contextmanager
    def admit(self, client: bytes) -> Iterator[Mapping[str, str]]:
        """Let a request in, and count it as running until the block ends; headers for its reply.

        Raises:
            HTTPRefusal: 429 with Retry-After.
        """
        account = self._account(client)
        for bucket, what in ((account.requests, "requests"), (account.tokens, "tokens")):
            if bucket is not None and bucket.level < 1:
                text = f"more than {bucket.size} {what} per minute"
                raise _refusal(text, bucket.wait_s(1), _headers(account))
        _check_room(account, account.num_running, self._limits.max_concurrent, "requests")
        if account.requests is not None:
            account.requests.level -= 1
        account.num_running += 1
        try:
            yield _headers(account)
        finally:
            account.num_running -= 1

    @contextlib.contextmanager
    def admit_socket(self, client: bytes) -> Iterator[Mapping[str, str]]:
        """Let a WebSocket in; see `admit`."""
        account = self._account(client)
        _check_room(account, account.num_sockets, self._limits.max_sockets, "WebSockets")
        account.num_sockets += 1
        try:
            yield _headers(account)
        finally:
            account.num_sockets -= 1

    def take_tokens(self, client: bytes, count: int) -> None:
        """Take a model's tokens out of a client's bucket."""
        if self._limits.tokens_per_minute is not None:
            tokens = self._account(client).tokens
            if tokens is not None:
                tokens.level -= count

    def check_address(self, address: str) -> None:
        """Refuse an address that has tried too many wrong keys.

        Raises:
            HTTPRefusal: 429 with Retry-After.
        """
        bucket = self._failures.get(address)
        if bucket is not None:
            bucket.fill(self._clock())
            if bucket.level < 1:
                raise _refusal("too many wrong keys from this address", bucket.wait_s(1), {})

    def count_failure(self, address: str) -> None:
        """A wrong key came from this address."""
        limit = self._limits.failed_keys_per_minute
        if limit is None:
            return
        now_s = self._clock()
        bucket = self._failures.setdefault(address, Bucket(limit, limit, now_s))
        bucket.fill(now_s)
        bucket.level -= 1
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_CLIENTS:
            self._failures.popitem(last=False)

    def _account(self, client: bytes) -> _Account:
        now_s, limits = self._clock(), self._limits
        account = self._accounts.get(client)
        if account is None:
            account = _Account(
                _bucket(limits.requests_per_minute, now_s), _bucket(limits.tokens_per_minute, now_s)
            )
            self._accounts[client] = account
            self._forget()
        self._accounts.move_to_end(client)
        for bucket in (account.requests, account.tokens):
            if bucket is not None:
                bucket.fill(now_s)
        return account

    def _forget(self) -> None:
        """Drop the account not used for longest that nobody uses now."""
        if len(self._accounts) <= MAX_CLIENTS:
            return
        for client, account in self._accounts.items():
            if not account.num_running and not account.num_sockets:
                del self._accounts[client]
                return


def _bucket(size: int | None, now_s: float) -> Bucket | None:
    return None if size is None else Bucket(size, size, now_s)


def _check_room(account: _Account, count: int, most: int | None, what: str) -> None:
    if most is not None and count >= most:
        raise _refusal(f"more than {most} {what} at a time", 1.0, _headers(account))


def _refusal(text: str, wait_s: float, headers: Mapping[str, str]) -> HTTPRefusal:
    retry = {"Retry-After": str(max(1, math.ceil(wait_s)))}
    return HTTPRefusal(429, text, code="rate_limit_exceeded", headers={**headers, **retry})


def _headers(account: _Account) -> dict[str, str]:
    headers = {}
    for name, bucket in (("requests", account.requests), ("tokens", account.tokens)):
        if bucket is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(bucket.size)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.level)))
            headers[f"x-ratelimit-reset-{name}"] = f"{bucket.wait_s(bucket.size):.3f}s"
    return headers
