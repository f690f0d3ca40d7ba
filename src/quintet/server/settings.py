"""What the server is allowed to do: addresses, keys, sizes and deadlines in one value."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from quintet.errors import RequestError
from quintet.server.keys import ApiKey
from quintet.server.rate_limits import RateLimits

MIB = 1024 * 1024
DIALECTS = ("quintet", "nano", "densecore", "oprel", "woolly", "llamacpp")
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of one server.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 asks the system for a free one.
        keys: the accepted keys, each with what it may do.  Without any key none is asked for.
        rate_limits: of each key, or of each address where there are no keys.
        cors_origins: web pages of these exact origins may use the server; those of any, with "*".
        tls_cert, tls_key: PEM files; with them the server speaks TLS 1.2 or 1.3 and no HTTP.
        metric_prefix: of the names in /metrics; None: the dialect's.
        extra_hosts: names a `Host` header may carry besides the loopback names and `host`.
        max_body_bytes: the largest request body.
        max_json_depth: the deepest nesting of a JSON body.
        body_timeout_s: from the first byte of a body to its last.
        header_timeout_s: from a connection's start to the end of its first headers.
        idle_timeout_s: how long a kept-alive connection may wait for its next request.
        socket_idle_s: how long a WebSocket on which nothing is pending may stay silent.
        keep_alive_s: silence on a stream after which a comment is sent.
        stall_timeout_s: how long one write may wait for a client that does not read.
        drain_timeout_s: how long running requests may finish after SIGTERM.
        stuck_after_s: waiting work without an engine step for this long is ill health.
        max_connections: connections open at the same time.
        max_connections_per_address: of those, from one address that is not this machine.
        max_message_bytes: the largest WebSocket message.
        dialect: whose ways the server has where systems differ, see `flavours`; one of DIALECTS.
    """

    host: str = "127.0.0.1"
    port: int = 11434
    keys: tuple[ApiKey, ...] = ()
    rate_limits: RateLimits = field(default_factory=RateLimits)
    cors_origins: frozenset[str] = frozenset()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    metric_prefix: str | None = None
    extra_hosts: frozenset[str] = frozenset()
    max_body_bytes: int = 8 * MIB
    max_json_depth: int = 64
    body_timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0
    socket_idle_s: float = 300.0
    keep_alive_s: float = 15.0
    stall_timeout_s: float = 30.0
    drain_timeout_s: float = 30.0
    stuck_after_s: float = 60.0
    max_connections: int = 512
    max_connections_per_address: int = 128
    max_message_bytes: int = MIB
    dialect: str = "quintet"

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise RequestError(
                f"expected one of {', '.join(DIALECTS)}, found {self.dialect!r}",
                parameter="dialect",
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK_HOSTS

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names a `Host` header may carry, lower case, without ports or brackets."""
        return LOOPBACK_HOSTS | {self.host.lower()} | {name.lower() for name in self.extra_hosts}


def is_loopback(address: str) -> bool:
    """Whether a peer of this address is on this machine; one without any is, on a Unix socket."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True
