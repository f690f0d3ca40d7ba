"""What this machine is called by others, for servers that listen on all of its addresses."""

from __future__ import annotations

import contextlib
import socket

_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
_ELSEWHERE = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses for documentation (RFC 5737, RFC 3849); nothing is sent there."""


def own_names(host: str) -> frozenset[str]:
    """
    Names and addresses that a `Host` header may carry for a server on this address.

    Args:
        host: where it listens.

    Returns:
        This machine's, where that is every address; otherwise none besides `host`.
    """
    if host not in _WILDCARDS:
        return frozenset()
    name = socket.gethostname()
    names = {name}
    with contextlib.suppress(OSError):
        names |= {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    for address, family in _ELSEWHERE:
        # The address packets would leave from; connecting a datagram socket sends none.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            names.add(str(probe.getsockname()[0]))
    return frozenset(names)
