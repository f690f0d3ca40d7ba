"""What this machine is called."""

from __future__ import annotations

import socket

from quintet.server.own_names import own_names


def test_every_address_has_this_machines_names():
    """The host's name and its addresses; a single address has no further names."""
    names = own_names("0.0.0.0")
    assert socket.gethostname() in names
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return  # a machine without a network has none
        assert probe.getsockname()[0] in names
    assert own_names("127.0.0.1") == frozenset()
