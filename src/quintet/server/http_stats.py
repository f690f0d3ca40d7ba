"""Counters of the HTTP side, as `EngineStats` are of the engine's."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from quintet.engine.latency import Stopwatch
from quintet.server.exchange import Exchange

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "WEBSOCKET"})


@dataclass(slots=True)
class HTTPStats:
    """
    Requests by what was asked for, never by what a client wrote: labels must stay few.

    Attributes:
        requests: ended, by method, route and status.
        durations: from a request's headers to the end of its reply, by route.
        num_in_flight: requests that are not ended.
        num_streams: of those, the ones whose reply has begun to come in frames.
        num_sockets: WebSockets open.
        num_refused_keys: requests without an accepted key.
        num_limited: requests refused by a rate limit.
        num_ignored_fields: fields of bodies that are not known here.
    """

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    durations: defaultdict[str, Stopwatch] = field(default_factory=lambda: defaultdict(Stopwatch))
    num_in_flight: int = 0
    num_streams: int = 0
    num_sockets: int = 0
    num_refused_keys: int = 0
    num_limited: int = 0
    num_ignored_fields: int = 0

    def end(self, exchange: Exchange, method: str, route: str, duration_s: float) -> None:
        """Count a request that has ended."""
        method = method if method in _METHODS else "OTHER"
        self.requests[method, route, exchange.status] += 1
        self.durations[route].record(duration_s)
        self.num_refused_keys += exchange.status == 401
        self.num_limited += exchange.status == 429
        self.num_ignored_fields += exchange.num_ignored_fields
