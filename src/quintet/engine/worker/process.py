"""EngineProcess: an EngineClient whose engine is a process of its own."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.client import EngineState
from quintet.engine.embedding import EmbeddingRequest
from quintet.engine.loading import ModelOptions
from quintet.engine.open_streams import OpenStreams
from quintet.engine.request import Request
from quintet.engine.stats import EngineStats
from quintet.engine.stream import RequestStream
from quintet.engine.worker.channel import Channel
from quintet.engine.worker.messages import (
    Abort,
    Add,
    Audit,
    Audited,
    Close,
    Compile,
    Compiled,
    Embed,
    FromWorker,
    Load,
    Ready,
    Step,
    ToWorker,
    encode,
)
from quintet.engine.worker.supervisor import CLOSE_GRACE_S, Backoff, Supervisor
from quintet.errors import CapacityError, EngineError, QuintetError

MAX_COMPILE_S = 10.0
MAX_UNREAD_CHUNKS = 4096  # some 1 MB per stream, 10 MB with 20 log probabilities per token


class EngineProcess:
    """
    An `EngineClient` over a worker process, which is replaced when it crashes.

    A crash ends the requests of this model with EngineError at once; until the next
    worker has loaded, `submit` raises CapacityError with a hint when to come back,
    rather than let requests pile up behind a model that may never return.  After
    `backoff.max_crashes` crashes in a row it is closed and says why.

    Memory is bounded on both sides: a stream holds MAX_UNREAD_CHUNKS that its reader has
    not taken, then it is aborted; should this whole process stand still, the worker's
    engine waits.

    Each worker computes with `options.num_threads` threads.  Two models on the same cores
    take turns at the system's mercy: give each its share.

    Args:
        path: as for `engine.loading.load`.
        options, config: the same.
        backoff: when to replace a crashed worker.
    """

    def __init__(
        self,
        path: Path,
        options: ModelOptions,
        config: EngineConfig,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._name = path.name
        self._streams = OpenStreams(MAX_UNREAD_CHUNKS)
        self._lock = threading.RLock()
        # Under the lock:
        self._channel: Channel[ToWorker, FromWorker] | None = None  # while a worker is ready
        self._closed: QuintetError | None = None  # why
        self._back_at_s = 0.0  # when the next worker starts
        self._load_s = 0.0  # how long the latest one took to load
        self._pending: dict[int, _Pending] = {}  # questions to the worker, by ticket

        self._stats = EngineStats()
        self._earlier = EngineStats()  # what is left of workers that are gone

        self._limits: EngineLimits | None = None
        self._tickets = itertools.count(1)
        self._is_settled = threading.Event()  # the first worker is ready, or none will be
        self._started_s = time.monotonic()
        load = Load(os.getcwd(), str(path), options, config)
        self._supervisor = Supervisor(self._name, load, self, backoff or Backoff())
        self._supervisor.start()

    def wait_ready(self) -> None:
        """Wait until the model is loaded for the first time.

        Raises: as for `engine.loading.load`; EngineError where the process did not live to
            tell, or was closed.
        """
        self._is_settled.wait()
        if self._closed is not None:
            raise self._closed

    @property
    def limits(self) -> EngineLimits:
        """What the engine takes.

        Raises:
            EngineError: it has never been ready.
        """
        if self._limits is None:
            raise EngineError(f"{self._name} is not loaded yet")
        return self._limits

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        return self._supervisor.pid

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or has crashed too often."""
        return self._closed is not None

    @property
    def state(self) -> EngineState:
        """Whether it takes requests now; "restarting" until the next worker has loaded."""
        with self._lock:
            if self._closed is not None:
                return "closed"
            if self._channel is not None:
                return "ready"
            return "loading" if self._limits is None else "restarting"

    def check(self, request: Request) -> None:
        """Refuse what can never be served; see EngineClient.

        A constraint is compiled by the worker: should it bring its compiler down, only the
        worker falls.

        Raises:
            CapacityError, EngineError: there is no worker, or it has just crashed.
        """
        self.limits.check(request)
        if request.params.constraint is None:
            return
        answer = self._ask(lambda ticket: Compile(ticket, request), MAX_COMPILE_S)
        if answer is not None:
            raise answer

    def submit(self, request: Request) -> RequestStream:
        """Start a request; see EngineClient.  CapacityError also while a worker restarts."""
        self.limits.check(request)
        return self._start(request.request_id, encode(Add(request)))

    def embed(self, request: EmbeddingRequest) -> RequestStream:
        """Start an embedding request; see EngineClient.  CapacityError as for `submit`."""
        self.limits.check_embedding(request)
        return self._start(request.request_id, encode(Embed(request)))

    def _start(self, request_id: str, data: bytes) -> RequestStream:
        with self._lock:
            channel = self._ready_channel()
            stream = self._streams.open(request_id, self._abort, self.limits.max_num_requests)
            if not _send(channel, data):
                self._streams.discard(request_id)
                raise self._restarting()
        return stream

    def stats(self) -> EngineStats:
        """The counters after the latest step; their totals go on when a worker is replaced."""
        with self._lock:
            return self._stats.after(self._earlier)

    def audit(self, timeout_s: float = 10.0) -> None:
        """Have the engine check its books; see `Engine.audit`.

        Raises:
            EngineError: an account is wrong, or there is no answer within `timeout_s`.
            CapacityError: the worker restarts.
        """
        answer = self._ask(Audit, timeout_s)
        if answer is not None:
            raise EngineError(f"the audit of {self._name} failed: {answer}")

    def close(self) -> None:
        """End what is running with EngineError and end the process.  Idempotent."""
        with self._lock:
            channel, self._channel = self._channel, None
            if self._closed is None:
                self._closed = EngineError("the engine was closed")
            if channel is not None:
                _send(channel, encode(Close()))
        # It can be told to close only once it has loaded.
        self._supervisor.stop(0.0 if channel is None else CLOSE_GRACE_S)
        self._end_streams("the engine was closed")
        self._is_settled.set()

    def on_ready(self, channel: Channel[ToWorker, FromWorker], ready: Ready) -> None:
        """See Listener."""
        with self._lock:
            if self._limits is not None:
                self._earlier = dataclasses.replace(
                    self._earlier, num_restarts=self._earlier.num_restarts + 1
                )
            self._limits, self._stats = ready.limits, ready.stats
            self._load_s = time.monotonic() - max(self._started_s, self._back_at_s)
            if self._closed is None:
                self._channel = channel
            else:
                _send(channel, encode(Close()))
        self._is_settled.set()

    def on_step(self, step: Step) -> None:
        """See Listener."""
        with self._lock:  # first, so that who has read a chunk finds it counted
            self._stats = step.stats
        self._streams.deliver(step.chunks)

    def on_compiled(self, compiled: Compiled) -> None:
        """See Listener."""
        failure = compiled.failure
        self._answer(compiled.ticket, None if failure is None else failure.error())

    def on_audited(self, audited: Audited) -> None:
        """See Listener."""
        fault = audited.fault
        self._answer(audited.ticket, None if fault is None else EngineError(fault))

    def on_lost(self, error: QuintetError, retry_in_s: float | None) -> None:
        """See Listener."""
        text = str(error)
        with self._lock:
            self._channel = None
            if retry_in_s is not None:
                text += "; it is being restarted"
                self._back_at_s = time.monotonic() + retry_in_s
            elif self._closed is None:
                if self._limits is not None:  # it has been ready, so this is no error of loading
                    text += ", once too often in a row; it is not restarted"
                    error = EngineError(text)
                self._closed = error
        self._end_streams(text)
        self._is_settled.set()

    def _ask(self, message: Callable[[int], ToWorker], timeout_s: float) -> QuintetError | None:
        """Ask the worker something; what is wrong, or None.

        Args:
            message: makes it from its ticket.

        Raises:
            CapacityError: the worker restarts.
            EngineError: it is closed.
        """
        ticket, pending = next(self._tickets), _Pending()
        data = encode(message(ticket))
        with self._lock:
            if not _send(self._ready_channel(), data):
                raise self._restarting()
            self._pending[ticket] = pending
        is_done = pending.is_done.wait(timeout_s)
        with self._lock:
            self._pending.pop(ticket, None)
        return pending.error if is_done else EngineError(f"no answer within {timeout_s:g} s")

    def _answer(self, ticket: int, error: QuintetError | None) -> None:
        with self._lock:
            pending = self._pending.get(ticket)
        if pending is not None:
            pending.error = error
            pending.is_done.set()

    def _ready_channel(self) -> Channel[ToWorker, FromWorker]:
        if self._closed is not None:
            raise EngineError(str(self._closed))
        if self._channel is None:
            raise self._restarting()
        return self._channel

    def _restarting(self) -> CapacityError:
        return CapacityError(
            f"the worker process of {self._name} is being restarted",
            resource="worker process",
            retry_after_s=max(1.0, self._back_at_s + self._load_s - time.monotonic()),
        )

    def _abort(self, request_id: str) -> None:
        with self._lock:
            if self._channel is not None and request_id in self._streams:
                _send(self._channel, encode(Abort(request_id)))

    def _end_streams(self, error: str) -> None:
        """End what is open, streams and questions; the worker is gone."""
        num_unfinished = self._streams.end_all(error)
        with self._lock:
            self._earlier = self._stats.after(self._earlier).lost(num_unfinished)
            self._stats = EngineStats()
            tickets = tuple(self._pending)
        for ticket in tickets:
            self._answer(ticket, EngineError(error))


def _send(channel: Channel[ToWorker, FromWorker], data: bytes) -> bool:
    """Whether there was somebody to send to.  If not, the worker has just gone, and `on_lost`
    is about to say so."""
    try:
        channel.send_encoded(data)
    except CapacityError:
        return False
    return True


class _Pending:
    """A question whose answer is awaited."""

    def __init__(self) -> None:
        self.error: QuintetError | None = None
        self.is_done = threading.Event()
