"""Messages between two processes: two ZeroMQ sockets in a directory only the user can enter.

One socket each way, so that the client may send from any thread while another
one waits for answers.  The client binds, the worker connects.

Sources: ZeroMQ guide, "Sockets and Patterns" (PUSH, PULL); zmq_ipc(7); unix(7).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import zmq

from quintet.engine.worker.messages import (
    MAX_MESSAGE_BYTES,
    FromWorker,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from quintet.errors import CapacityError, EngineError

_MAX_PATH_BYTES = 107  # sun_path less its final zero
# Steps that a client may lag behind at each end; then the worker's sends wait, and its engine
# with them.  A client lags when its process is stopped: it reads before it does anything else.
_MAX_WAITING_STEPS = 64
_LINGER_MS = 2000  # for the last message of a worker that exits

Sent = TypeVar("Sent", ToWorker, FromWorker)
Received = TypeVar("Received", ToWorker, FromWorker)


class Channel(Generic[Sent, Received]):
    """One end of a connection; made by `bind` or `connect`.

    Args:
        sender, receiver: sockets, from now on this object's.
        decode: of the messages received.
        directory: where the sockets are.
    """

    def __init__(
        self,
        sender: zmq.Socket[bytes],
        receiver: zmq.Socket[bytes],
        decode: Callable[[bytes], Received],
        directory: Path,
    ) -> None:
        self.sender = sender
        self.receiver = receiver
        self.directory = directory
        self._decode: Callable[[bytes], Received] = decode
        self._sending = threading.Lock()  # a socket may change threads, but not be shared
        self._is_closed = False

    def send(self, message: Sent, *, wait: bool = False) -> None:
        """Send a message; see `send_encoded`."""
        self.send_encoded(encode(message), wait=wait)

    def send_encoded(self, data: bytes, *, wait: bool = False) -> None:
        """Send what `encode` made; from any thread.

        Args:
            wait: for the other side to make room; False raises.

        Raises:
            CapacityError: there is nobody to send to.
        """
        with self._sending:
            try:
                if not self._is_closed:
                    self.sender.send(data, 0 if wait else zmq.DONTWAIT)
                    return
            except zmq.Again:
                pass
        raise CapacityError(
            "the worker process is gone", resource="worker process", retry_after_s=1.0
        )

    def receive(self, *, wait: bool) -> Received | None:
        """The next message; always in the same thread; None if there is none and `wait` is False.

        Raises:
            msgspec.DecodeError: the other side runs other code.
        """
        try:
            data = self.receiver.recv(0 if wait else zmq.DONTWAIT)
        except zmq.Again:
            return None
        return self._decode(data)

    def hide(self) -> None:
        """Remove the sockets' names: connections stay, others can no longer be made."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Close both sockets; what is unsent lingers in the context for a moment."""
        with self._sending:
            self._is_closed = True
            self.sender.close()
        self.receiver.close()


def bind(context: zmq.Context[zmq.Socket[bytes]]) -> Channel[ToWorker, FromWorker]:
    """The client's end, in a new directory; `hide` it when it is no longer needed.

    Raises:
        EngineError: the directory's path is too long for a socket; TMPDIR decides where it is.
    """
    directory = _private_directory()
    try:
        sender = _socket(context, zmq.PUSH)
        # Nobody may wait here, and no abort may get lost, so there is no mark: what may be on its
        # way is bounded by the requests there are, at most one Add and one Abort each.
        sender.set(zmq.SNDHWM, 0)
        sender.set(zmq.LINGER, 0)
        sender.bind(_endpoint(directory, _REQUESTS))
        receiver = _socket(context, zmq.PULL)
        receiver.set(zmq.RCVHWM, _MAX_WAITING_STEPS)
        receiver.bind(_endpoint(directory, _REPLIES))
    except zmq.ZMQError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise EngineError(f"no sockets for a worker process: {error}") from error
    return Channel(sender, receiver, decode_from_worker, directory)


def connect(
    context: zmq.Context[zmq.Socket[bytes]], directory: Path
) -> Channel[FromWorker, ToWorker]:
    """The worker's end."""
    sender = _socket(context, zmq.PUSH)
    sender.set(zmq.SNDHWM, _MAX_WAITING_STEPS)
    sender.set(zmq.LINGER, _LINGER_MS)
    sender.connect(_endpoint(directory, _REPLIES))
    receiver = _socket(context, zmq.PULL)
    receiver.set(zmq.RCVHWM, 0)
    receiver.connect(_endpoint(directory, _REQUESTS))
    return Channel(sender, receiver, decode_to_worker, directory)


_REQUESTS, _REPLIES = "requests", "replies"


def _endpoint(directory: Path, name: str) -> str:
    return f"ipc://{directory / name}"


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    return socket


def _private_directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="quintet-"))  # mode 0700
    if len(os.fsencode(path / _REQUESTS)) > _MAX_PATH_BYTES:
        path.rmdir()
        raise EngineError(
            f"expected a directory for temporary files with a short path, found {path.parent}: "
            f"with a socket's name it exceeds {_MAX_PATH_BYTES} bytes; set TMPDIR"
        )
    return path
