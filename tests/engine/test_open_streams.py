"""Streams of a client's unfinished requests, without an engine."""

from __future__ import annotations

import pytest

from quintet.engine.open_streams import OpenStreams
from quintet.engine.output import OutputChunk, Usage
from quintet.engine.stats import EngineStats
from quintet.errors import CapacityError, EngineError, RequestError

USAGE = Usage(3, 0, 30)


def token(number: int) -> OutputChunk:
    return OutputChunk("a", text=str(number), token_ids=(number,))


def test_streams_are_bounded_and_unique() -> None:
    """An id in use and one request too many are refused; an end makes room."""
    streams = OpenStreams()
    first = streams.open("a", print, 2)
    with pytest.raises(RequestError, match="'a' is in use"):
        streams.open("a", print, 2)
    streams.open("b", print, 2)
    with pytest.raises(CapacityError) as caught:
        streams.open("c", print, 2)
    assert caught.value.retry_after_s == 1.0
    streams.deliver([token(1), OutputChunk("a", finish_reason="stop", usage=USAGE)])
    assert [chunk.text for chunk in first] == ["1", ""]
    assert "a" not in streams
    streams.open("c", print, 2)
    assert len(streams) == 2


def test_streams_end_together() -> None:
    """When the engine is gone every reader hears why, once."""
    streams = OpenStreams()
    readers = [streams.open(name, print, 9) for name in "abc"]
    assert streams.end_all("gone") == 3
    assert streams.end_all("gone") == 0
    for reader in readers:
        with pytest.raises(EngineError, match="gone"):
            list(reader)


@pytest.mark.parametrize("num_chunks", [9, 10, 11, 30])
def test_a_reader_may_leave_so_many_chunks_unread(num_chunks: int) -> None:
    """Up to the bound nothing is lost; beyond it the request is aborted once and fails."""
    aborted: list[str] = []
    streams = OpenStreams(max_unread_chunks=10)
    stream = streams.open("a", aborted.append, 1)
    streams.deliver(token(number) for number in range(num_chunks))
    unread = []
    if num_chunks <= 10:
        unread = [next(stream).token_id for _ in range(num_chunks)]
    streams.deliver([OutputChunk("a", finish_reason="abort", usage=USAGE)])
    if num_chunks <= 10:
        assert unread == list(range(num_chunks))
        assert aborted == []
        assert next(stream).finish_reason == "abort"
    else:
        assert aborted == ["a"]
        assert [next(stream).token_id for _ in range(10)] == list(range(10))
        with pytest.raises(EngineError, match="left 10 chunks unread"):
            next(stream)
    assert list(stream) == []


def test_a_last_chunk_always_has_room() -> None:
    """A full stream whose request ends is complete: nothing was lost."""
    streams = OpenStreams(max_unread_chunks=10)
    stream = streams.open("a", print, 1)
    streams.deliver(token(number) for number in range(10))
    streams.deliver([OutputChunk("a", finish_reason="stop", usage=USAGE)])
    assert [chunk.finish_reason for chunk in stream] == [None] * 10 + ["stop"]


def test_totals_of_a_lost_engine_are_carried_over() -> None:
    """Totals add up, the unfinished have failed, and what is now is the new engine's."""
    old = EngineStats(num_requests=7, num_finished=4, num_failed=1, num_running=3, num_blocks=9)
    lost = old.lost(3)
    assert (lost.num_requests, lost.num_finished, lost.num_failed) == (7, 7, 4)
    assert (lost.num_running, lost.num_blocks) == (0, 0)
    assert lost.lost(0) == lost
    new = EngineStats(num_requests=2, num_running=2, num_blocks=5, last_step_s=0.5).after(lost)
    assert (new.num_requests, new.num_finished, new.num_running) == (9, 7, 2)
    assert (new.num_blocks, new.last_step_s) == (5, 0.5)
