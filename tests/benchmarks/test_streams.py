"""Many streams at once, from a server of its own."""

from __future__ import annotations

from argparse import Namespace

import bench_streams


def test_every_one_of_256_streams_is_complete():
    """Opened together on the packaged model: each has its tokens, its reason and its [DONE]."""
    found = bench_streams.measure("quintet", Namespace(streams=256, tokens=8, peer_python=None))
    assert found["complete"] == found["streams"] == 256
    # A token may be half of a character, whose text comes with the next one.
    assert 0.9 * 256 * 8 < found["events"] <= 256 * 8
    assert found["server_cpu_us_per_event"] > 0
