"""The worker's side: one process, one model, one loop that owns the engine."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import resource
import signal
import sys
import threading
from pathlib import Path

import zmq

from quintet.engine.engine import Engine
from quintet.engine.loading import load
from quintet.engine.output import OutputChunk
from quintet.engine.worker.channel import Channel, connect
from quintet.engine.worker.failures import Failure
from quintet.engine.worker.launch import LOG_FORMAT_VARIABLE
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
    LoadFailed,
    Loading,
    Ready,
    Step,
    ToWorker,
)
from quintet.errors import CapacityError
from quintet.logs import configure

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve the client whose socket directory and process id are the arguments."""
    directory, parent_pid = Path(sys.argv[1]), int(sys.argv[2])
    _prepare(parent_pid)
    with zmq.Context() as context:
        channel = connect(context, directory)
        try:
            _serve(channel)
        finally:
            channel.close()


def _prepare(parent_pid: int) -> None:
    """Die with the parent; leave signals that mean the whole server to it; no core dumps."""
    _die_with(parent_pid)
    # A service manager may send SIGTERM to every process of a service.  The server lets its
    # requests finish then, so its workers must live until it says Close.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold everybody's prompts
    faulthandler.enable()
    is_json = os.environ.get(LOG_FORMAT_VARIABLE) == "json"
    configure("json" if is_json else "text", "warning")


def _die_with(parent_pid: int) -> None:
    """However the parent ends, end as well, even in the middle of a step.

    Source: Linux, prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it was gone before we asked
        os._exit(1)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):  # nothing is ever written to it
            pass
        os._exit(1)

    threading.Thread(target=watch, name="quintet-parent-watch", daemon=True).start()


def _serve(channel: Channel[FromWorker, ToWorker]) -> None:
    order = channel.receive(wait=True)
    if not isinstance(order, Load):
        raise TypeError(f"expected Load, found {type(order).__name__}")
    channel.send(Loading(), wait=True)
    try:
        os.chdir(order.directory)
        engine = load(Path(order.path), order.options, order.config).engine
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is to know
        channel.send(LoadFailed(Failure.of(error)), wait=True)
        channel.receive(wait=True)  # Close: it has been read
        return
    try:
        channel.send(Ready(engine.limits, engine.stats()), wait=True)
        _Loop(channel, engine).run()
    finally:
        engine.close()


class _Loop:
    """Messages, a step, messages, a step.

    What fails outside a step ends the process: the books may be wrong then, and the client
    starts a new one.
    """

    def __init__(self, channel: Channel[FromWorker, ToWorker], engine: Engine) -> None:
        self._channel = channel
        self._engine = engine
        self._is_closing = False

    def run(self) -> None:
        """Until Close."""
        while not self._is_closing:
            chunks = self._read_messages()
            if chunks:
                self._publish(chunks)
            if self._engine.has_work and not self._is_closing:
                self._publish(self._engine.step())

    def _read_messages(self) -> list[OutputChunk]:
        """Handle the messages there are; wait for one while there is nothing else to do."""
        chunks = []
        message = self._channel.receive(wait=not self._engine.has_work)
        while message is not None:
            chunk = self._handle(message)
            if chunk is not None:
                chunks.append(chunk)
            message = self._channel.receive(wait=False)
        return chunks

    def _handle(self, message: ToWorker) -> OutputChunk | None:
        match message:
            case Add(request):
                return self._engine.start(request)
            case Embed(request):
                return self._engine.embed(request)
            case Abort(request_id):
                return self._engine.abort(request_id)
            case Compile():
                threading.Thread(target=self._compile, args=(message,), daemon=True).start()
            case Audit(ticket):
                self._channel.send(Audited(ticket, self._engine.find_fault()), wait=True)
            case Close():
                self._is_closing = True
            case Load():
                raise TypeError("a worker loads one model")
        return None

    def _publish(self, chunks: list[OutputChunk]) -> None:
        self._channel.send(Step(tuple(chunks), self._engine.stats()), wait=True)

    def _compile(self, order: Compile) -> None:
        """In a thread of its own: it may take a second, and the compiler keeps the outcome."""
        failure = None
        try:
            self._engine.new_matcher(order.request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is to know
            failure = Failure.of(error)
        with contextlib.suppress(CapacityError):  # closing: nobody waits any more
            self._channel.send(Compiled(order.ticket, failure), wait=True)


if __name__ == "__main__":
    main()
