"""The engine in a thread of this process.

One thread runs the loop and is the only one to touch the engine.  The others
leave messages in an inbox, which the loop reads between steps; when there is
nothing to do it sleeps on a condition.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Final, TypeAlias

from quintet.engine.admission import EngineLimits
from quintet.engine.engine import Engine
from quintet.engine.output import OutputChunk
from quintet.engine.request import Request
from quintet.engine.stats import EngineStats
from quintet.engine.stream import RequestStream
from quintet.errors import CapacityError, EngineError, RequestError
from quintet.sampling.matcher import ConstraintMatcher

logger = logging.getLogger(__name__)

_CLOSED: Final = "the engine was closed"
_Message: TypeAlias = tuple[Request, ConstraintMatcher | None] | str
"""A request to add, with what its constraint was compiled to; or the id of one to abort."""


class EngineThread:
    """
    An `EngineClient` whose engine runs in a thread of its own.

    Args:
        engine: not to be touched by anyone else from now on (but for `new_matcher`).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limits = engine.limits
        self._stats = engine.stats()
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._inbox: deque[_Message] = deque()
        self._streams: dict[str, RequestStream] = {}  # of unfinished requests
        self._closed: str | None = None  # why
        self._pace = _Pace()
        # A daemon: a program that forgets to close must still be able to exit.
        self._thread = threading.Thread(target=self._loop, name="quintet-engine", daemon=True)
        self._thread.start()

    @property
    def limits(self) -> EngineLimits:
        """What the engine takes."""
        return self._limits

    def check(self, request: Request) -> None:
        """Refuse what can never be served; see EngineClient."""
        self._limits.check(request)
        self._engine.new_matcher(request)

    def submit(self, request: Request) -> RequestStream:
        """Start a request; see EngineClient."""
        self._limits.check(request)
        matcher = self._engine.new_matcher(request)
        stream = RequestStream(request.request_id, self._abort)
        with self._changed:
            if self._closed is not None:
                raise EngineError(self._closed)
            if request.request_id in self._streams:
                raise RequestError(f"{request.request_id!r} is in use", parameter="request_id")
            if len(self._streams) >= self._limits.max_num_requests:
                raise CapacityError(
                    f"{len(self._streams)} requests are running or waiting, the most allowed",
                    resource="request queue",
                    retry_after_s=max(1.0, self._pace.seconds_per_end),
                )
            self._streams[request.request_id] = stream
            self._inbox.append((request, matcher))
            self._changed.notify()
        return stream

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or its loop has failed."""
        return self._closed is not None

    def stats(self) -> EngineStats:
        """The counters after the latest step."""
        return self._stats

    def close(self) -> None:
        """End what is running with EngineError, stop the thread, free the model.  Idempotent."""
        with self._changed:
            if self._closed is None:
                self._closed = _CLOSED
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _abort(self, request_id: str) -> None:
        with self._changed:
            if request_id in self._streams:
                self._inbox.append(request_id)
                self._changed.notify()

    def _loop(self) -> None:
        try:
            while self._closed is None:
                self._publish([c for m in self._take_messages() if (c := self._handle(m))])
                if self._engine.has_work:
                    self._publish(self._engine.step())
        except Exception:
            logger.exception("the engine loop failed")
            self._closed = "the engine has failed; see the log"
        finally:
            self._shut_down()

    def _take_messages(self) -> list[_Message]:
        """The inbox's content; waits for some while there is nothing else to do."""
        with self._changed:
            while not self._inbox and not self._engine.has_work and self._closed is None:
                self._changed.wait()
            messages = list(self._inbox)
            self._inbox.clear()
            return messages

    def _handle(self, message: _Message) -> OutputChunk | None:
        if isinstance(message, str):
            return self._engine.abort(message)
        request, matcher = message
        try:
            self._engine.add(request, matcher)
            return None
        except Exception as error:  # one bad request must not end the loop
            logger.error("a request could not be started", exc_info=error)
            text = f"the request could not be started: {error}"
            return OutputChunk(request.request_id, finish_reason="error", error=text)

    def _publish(self, chunks: list[OutputChunk]) -> None:
        # First, so that who has read a chunk finds it counted.
        self._stats = self._engine.stats()
        for chunk in chunks:
            stream = self._streams[chunk.request_id]
            if chunk.finish_reason is not None:
                # Before the reader hears of it: its room in the queue is free by then.
                with self._changed:
                    del self._streams[chunk.request_id]
                    self._pace.count_end()
            stream.deliver(chunk)

    def _shut_down(self) -> None:
        with self._changed:
            streams = tuple(self._streams.values())
            self._streams.clear()
            self._inbox.clear()
        for stream in streams:
            stream.deliver(
                OutputChunk(stream.request_id, finish_reason="error", error=self._closed)
            )
        self._engine.close()
        self._stats = self._engine.stats()


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
