"""Keeps a worker process alive: starts it, reads from it, replaces it."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Protocol

import zmq

from quintet.engine.worker.channel import Channel, bind
from quintet.engine.worker.launch import WorkerProcess
from quintet.engine.worker.messages import (
    Audited,
    Close,
    Compiled,
    FromWorker,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Step,
    ToWorker,
)
from quintet.errors import EngineError, QuintetError

logger = logging.getLogger(__name__)

_NUM_DESCRIPTORS = 32  # more than a context, its sockets and a process take
CLOSE_GRACE_S = 5.0  # from Close, or the end of the pipe, to SIGKILL


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    How long to wait before a crashed worker is replaced.

    Args:
        first_s: after the first crash; doubles with every crash that follows.
        longest_s: where doubling ends.
        max_crashes: crashes in a row after which the model is given up.
        stable_s: a worker that was ready for this long starts a new row.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    max_crashes: int = 8
    stable_s: float = 60.0

    def delay_s(self, num_crashes: int) -> float | None:
        """Seconds to wait after this many crashes in a row; None to give up."""
        if num_crashes >= self.max_crashes:
            return None
        return min(self.longest_s, self.first_s * 2 ** (num_crashes - 1))


class Listener(Protocol):
    """Who is told what happens to a worker, in the supervisor's thread."""

    def on_ready(self, channel: Channel[ToWorker, FromWorker], ready: Ready) -> None:
        """A worker takes requests through this channel."""

    def on_step(self, step: Step) -> None:
        """A step has ended."""

    def on_compiled(self, compiled: Compiled) -> None:
        """A constraint has been compiled, or could not be."""

    def on_audited(self, audited: Audited) -> None:
        """An audit has ended."""

    def on_lost(self, error: QuintetError, retry_in_s: float | None) -> None:
        """The worker is gone; another comes in `retry_in_s` and the time it takes to load.

        None: no other comes.
        """


class Supervisor:
    """
    One worker process at a time, in a thread of its own, until told to stop.

    A model that cannot be loaded the first time is not tried again: its error is
    the caller's to see.  After that every end of the process is a crash.

    Args:
        name: the model's, for messages.
        load: what each worker is to load.
        listener: who is told.
        backoff: when to start again.
    """

    def __init__(self, name: str, load: Load, listener: Listener, backoff: Backoff) -> None:
        self._name = name
        self._load = load
        self._listener = listener
        self._backoff = backoff
        self._was_ready = False
        self._ready_at_s: float | None = None  # this worker
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: WorkerProcess | None = None  # under the lock
        # The kernel kills a worker with the thread that started it, so this one does; a daemon,
        # so that a program that forgets to close can still exit, and the worker with it.
        self._thread = threading.Thread(target=self._run, name="quintet-worker", daemon=True)

    def start(self) -> None:
        """Start the first worker; returns at once."""
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def stop(self, grace_s: float) -> None:
        """Start no more workers; end this one after `grace_s`, should it not end by itself."""
        self._stopping.set()
        if threading.current_thread() is self._thread:
            return
        self._thread.join(grace_s)
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        num_crashes = 0
        while not self._stopping.is_set():
            self._ready_at_s = None
            try:
                error = self._live()
            except QuintetError as known:
                error = known
            except Exception as bug:
                logger.exception("the supervisor of %s failed", self._name)
                error = EngineError(f"the worker of {self._name} cannot be kept: {bug}")
            if self._stopping.is_set():
                break
            num_crashes = 1 if self._was_stable() else num_crashes + 1
            delay_s = self._backoff.delay_s(num_crashes) if self._was_ready else None
            self._log(error, num_crashes, delay_s)
            self._listener.on_lost(error, delay_s)
            if delay_s is None:
                return
            self._stopping.wait(delay_s)

    def _live(self) -> QuintetError:
        """One worker from start to end; how it ended."""
        _require_descriptors()
        context = zmq.Context()
        try:
            channel = bind(context)
            try:
                return self._live_in(WorkerProcess(channel.directory), channel)
            finally:
                channel.close()
                channel.hide()
        finally:
            context.destroy(linger=0)

    def _live_in(
        self, process: WorkerProcess, channel: Channel[ToWorker, FromWorker]
    ) -> QuintetError:
        try:
            with self._lock:
                self._process = process
                if self._stopping.is_set():
                    process.kill()
            failure = self._read(process, channel)
            end = process.wait(CLOSE_GRACE_S)
        finally:
            with self._lock:
                self._process = None
            process.close()
        return failure or EngineError(f"the worker process of {self._name} {end}")

    def _read(
        self, process: WorkerProcess, channel: Channel[ToWorker, FromWorker]
    ) -> QuintetError | None:
        """Pass on messages until the process has ended; the error if it could not load."""
        failure = None
        poller = zmq.Poller()
        poller.register(process.fileno(), zmq.POLLIN)
        poller.register(channel.receiver, zmq.POLLIN)
        poller.register(channel.sender, zmq.POLLOUT)  # until the worker has connected
        has_ended = False
        while not has_ended:
            events = dict(poller.poll())
            has_ended = process.fileno() in events
            if channel.sender in events:
                poller.unregister(channel.sender)
                channel.send(self._load)
            # Even if it has ended: what it said before is still read.
            while (message := channel.receive(wait=False)) is not None:
                if isinstance(message, LoadFailed):
                    failure = message.failure.error()
                    channel.send(Close())
                else:
                    self._pass_on(message, channel)
        return failure

    def _pass_on(
        self,
        message: Loading | Ready | Step | Compiled | Audited,
        channel: Channel[ToWorker, FromWorker],
    ) -> None:
        match message:
            case Step():
                self._listener.on_step(message)
            case Ready():
                self._was_ready, self._ready_at_s = True, time.monotonic()
                self._listener.on_ready(channel, message)
            case Compiled():
                self._listener.on_compiled(message)
            case Audited():
                self._listener.on_audited(message)
            case Loading():
                # Both its sockets have connected: a kill leaves nothing behind from now on.
                channel.hide()

    def _was_stable(self) -> bool:
        ready_at_s = self._ready_at_s
        return ready_at_s is not None and time.monotonic() - ready_at_s >= self._backoff.stable_s

    def _log(self, error: QuintetError, num_crashes: int, delay_s: float | None) -> None:
        if not self._was_ready:
            return  # whoever loads the model is told
        if delay_s is None:
            logger.critical("%s, %d times in a row; it is given up", error, num_crashes)
        else:
            logger.error("%s; the next one starts in %.1f s", error, delay_s)


def _require_descriptors() -> None:
    """libzmq aborts the process if it runs out of file descriptors; so find out before.

    Raises:
        EngineError: there are too few.
    """
    probes: list[int] = []
    try:
        while len(probes) < _NUM_DESCRIPTORS:
            probes.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise EngineError(f"a worker process cannot be started: {error.strerror}") from error
    finally:
        for probe in probes:
            os.close(probe)
