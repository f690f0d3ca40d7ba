"""The engine in a thread of this process.

One thread runs the loop and is the only one to touch the engine.  The others
leave messages in an inbox, which the loop reads between steps; when there is
nothing to do it sleeps on a condition.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Final, TypeAlias

from quintet.engine.admission import EngineLimits
from quintet.engine.client import EngineState
from quintet.engine.embedding import EmbeddingRequest
from quintet.engine.engine import Engine
from quintet.engine.open_streams import OpenStreams
from quintet.engine.output import OutputChunk
from quintet.engine.request import Request
from quintet.engine.stats import EngineStats
from quintet.engine.stream import RequestStream
from quintet.errors import EngineError
from quintet.sampling.matcher import ConstraintMatcher

logger = logging.getLogger(__name__)

_CLOSED: Final = "the engine was closed"
_Message: TypeAlias = "tuple[Request, ConstraintMatcher | None] | EmbeddingRequest | str | _Audit"
"""A request to add, with what its constraint was compiled to; one to embed; an id to abort; an
audit."""


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
        self._streams = OpenStreams()
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._inbox: deque[_Message] = deque()
        self._closed: str | None = None  # why
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
        return self._start(request.request_id, (request, self._engine.new_matcher(request)))

    def embed(self, request: EmbeddingRequest) -> RequestStream:
        """Start an embedding request; see EngineClient."""
        self._limits.check_embedding(request)
        return self._start(request.request_id, request)

    def _start(self, request_id: str, message: _Message) -> RequestStream:
        with self._changed:
            if self._closed is not None:
                raise EngineError(self._closed)
            stream = self._streams.open(request_id, self._abort, self._limits.max_num_requests)
            self._inbox.append(message)
            self._changed.notify()
        return stream

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or its loop has failed."""
        return self._closed is not None

    @property
    def state(self) -> EngineState:
        """ "ready" or "closed"; see EngineClient."""
        return "ready" if self._closed is None else "closed"

    def stats(self) -> EngineStats:
        """The counters after the latest step."""
        return self._stats

    def audit(self, timeout_s: float = 10.0) -> None:
        """Have the engine check its books; see EngineClient."""
        audit = _Audit()
        with self._changed:
            if self._closed is not None:
                raise EngineError(self._closed)
            self._inbox.append(audit)
            self._changed.notify()
        if not audit.is_done.wait(timeout_s):
            raise EngineError(f"the audit failed: no answer within {timeout_s} s")
        if audit.fault is not None:
            raise EngineError(f"the audit failed: {audit.fault}")

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
        if isinstance(message, _Audit):
            message.fault = self._engine.find_fault()
            message.is_done.set()
            return None
        if isinstance(message, str):
            return self._engine.abort(message)
        if isinstance(message, EmbeddingRequest):
            return self._engine.embed(message)
        return self._engine.start(*message)

    def _publish(self, chunks: list[OutputChunk]) -> None:
        # First, so that who has read a chunk finds it counted.
        self._stats = self._engine.stats()
        self._streams.deliver(chunks)

    def _shut_down(self) -> None:
        with self._changed:  # nothing is submitted any more
            audits = [message for message in self._inbox if isinstance(message, _Audit)]
            self._inbox.clear()
        for audit in audits:
            audit.fault = self._closed
            audit.is_done.set()
        self._streams.end_all(self._closed or _CLOSED)
        self._engine.close()
        self._stats = self._engine.stats()


class _Audit:
    """An audit whose outcome is awaited."""

    def __init__(self) -> None:
        self.is_done = threading.Event()
        self.fault: str | None = None
