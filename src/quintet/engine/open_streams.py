"""The unfinished requests of one client, and how fast they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from quintet.engine.output import OutputChunk
from quintet.engine.stream import RequestStream
from quintet.errors import CapacityError, RequestError


class OpenStreams:
    """
    Streams by request id, from `submit` to their last chunk.  Safe to use from any thread.

    Args:
        max_unread_chunks: see RequestStream.
    """

    def __init__(self, max_unread_chunks: int | None = None) -> None:
        self._max_unread_chunks = max_unread_chunks
        self._lock = threading.Lock()
        self._streams: dict[str, RequestStream] = {}
        self._pace = _Pace()

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._streams

    def open(
        self, request_id: str, abort: Callable[[str], None], max_num_requests: int
    ) -> RequestStream:
        """A stream for a new request.

        Raises:
            RequestError: the id is in use.
            CapacityError: there are `max_num_requests` already; carries `retry_after_s`.
        """
        stream = RequestStream(request_id, abort, self._max_unread_chunks)
        with self._lock:
            if request_id in self._streams:
                raise RequestError(f"{request_id!r} is in use", parameter="request_id")
            if len(self._streams) >= max_num_requests:
                raise CapacityError(
                    f"{len(self._streams)} requests are running or waiting, the most allowed",
                    resource="request queue",
                    retry_after_s=max(1.0, self._pace.seconds_per_end),
                )
            self._streams[request_id] = stream
        return stream

    def deliver(self, chunks: Iterable[OutputChunk]) -> None:
        """Hand each chunk to its stream; a last chunk closes it."""
        for chunk in chunks:
            stream = self._streams[chunk.request_id]
            if chunk.is_last:
                # Before the reader hears of it: its room in the queue is free by then.
                with self._lock:
                    del self._streams[chunk.request_id]
                    self._pace.count_end()
            stream.deliver(chunk)

    def discard(self, request_id: str) -> None:
        """Forget a stream whose request has gone nowhere."""
        with self._lock:
            self._streams.pop(request_id, None)

    def end_all(self, error: str) -> int:
        """End every stream with this error; returns how many there were."""
        with self._lock:
            streams = tuple(self._streams.values())
            self._streams.clear()
        for stream in streams:
            stream.deliver(OutputChunk(stream.request_id, finish_reason="error", error=error))
        return len(streams)


class _Pace:
    """How fast requests end, to tell the refused when to come back."""

    def __init__(self) -> None:
        self.seconds_per_end = 1.0
        self._last_end_s: float | None = None

    def count_end(self) -> None:
        now = time.monotonic()
        if self._last_end_s is not None:
            # Weight 1/8 for the latest: a few ends decide, one does not.
            self.seconds_per_end += (now - self._last_end_s - self.seconds_per_end) / 8
        self._last_end_s = now
