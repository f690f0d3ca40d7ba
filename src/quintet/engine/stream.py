"""A request's output on its way from the engine to whoever reads it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable

from quintet.engine.output import OutputChunk
from quintet.errors import CapacityError, EngineError


class RequestStream:
    """
    The chunks of one request, to be read with `for` or with `async for`, by one reader.

    Reading ends after the chunk with `is_last`.  Chunks wait here, so a slow reader holds
    up nobody.

    Args:
        request_id: the request's.
        abort: asks the engine to end it; safe to call at any time, from any thread.
        max_unread_chunks: a reader that leaves more unread loses the request, which is
            aborted and ends with an error.  None: there is no such bound (but a request
            has at most one chunk per token).  May be changed before reading starts.

    Raises:
        CapacityError: while iterating, where its turn did not come in time.
        EngineError: while iterating, where the request failed; what it had produced
            until then has been read by then.
    """

    def __init__(
        self,
        request_id: str,
        abort: Callable[[str], None],
        max_unread_chunks: int | None = None,
    ) -> None:
        self.request_id = request_id
        self.max_unread_chunks = max_unread_chunks
        self._abort = abort
        self._has_overflowed = False
        self._chunks: queue.SimpleQueue[OutputChunk] = queue.SimpleQueue()
        self._is_read = False
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def deliver(self, chunk: OutputChunk) -> None:
        """Hand in a chunk; for the engine's side."""
        if not self._has_overflowed and not chunk.is_last and self._is_full():
            self._has_overflowed = True
            self.abort()
        if self._has_overflowed:  # a gap in the text is worse than its end
            if not chunk.is_last:
                return
            text = f"aborted: its reader left {self.max_unread_chunks} chunks unread"
            chunk = OutputChunk(
                self.request_id,
                finish_reason="error",
                error=text,
                usage=chunk.usage,
                timings=chunk.timings,
            )
        self._chunks.put(chunk)
        # The reader sets _wake before it looks into the queue: whichever of us comes second
        # sees what the other did.
        if self._wake is not None:
            loop, event = self._wake
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # the reader's event loop has closed, nobody listens any more
                self.abort()

    def abort(self) -> None:
        """End the request at the next step boundary, if it is still going on."""
        self._abort(self.request_id)

    def __iter__(self) -> RequestStream:
        return self

    def __next__(self) -> OutputChunk:
        if self._is_read:
            raise StopIteration
        return self._read(self._chunks.get())

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> OutputChunk:
        if self._is_read:
            raise StopAsyncIteration
        if self._wake is None:
            self._wake = asyncio.get_running_loop(), asyncio.Event()
        _, event = self._wake
        while True:
            event.clear()
            try:
                chunk = self._chunks.get_nowait()
            except queue.Empty:
                await event.wait()
            else:
                return self._read(chunk)

    def _is_full(self) -> bool:
        limit = self.max_unread_chunks
        return limit is not None and self._chunks.qsize() >= limit

    def _read(self, chunk: OutputChunk) -> OutputChunk:
        self._is_read = chunk.is_last
        if chunk.is_overload:
            raise CapacityError(chunk.error or "", resource="request queue")
        if chunk.finish_reason == "error":
            raise EngineError(chunk.error)
        return chunk
