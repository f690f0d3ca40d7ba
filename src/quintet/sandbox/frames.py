"""Messages on a pipe: a length of four bytes, big endian, and as much JSON."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any, Final

MAX_BYTES: Final = 64 * 2**20
_PIPE_BYTES: Final = 65536


class Late(Exception):  # noqa: N818 - not an error by itself; the pool says what it means
    """The deadline has come."""


class Ended(Exception):  # noqa: N818
    """The other side is gone."""


def encode(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        ValueError: it is larger than MAX_BYTES, or not JSON.
    """
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes, found {len(data)}")
    return len(data).to_bytes(4, "big") + data


def write(fd: int, data: bytes, deadline_s: float | None) -> None:
    """Write it all; to a descriptor that does not block, if there is a deadline.

    Args:
        deadline_s: on `time.monotonic`'s clock; None for none.

    Raises:
        Late: it is not all read by the deadline.
        Ended: nobody reads any more.
    """
    rest = memoryview(data)
    while rest:
        _wait(fd, select.POLLOUT, deadline_s)
        try:
            rest = rest[os.write(fd, rest[:_PIPE_BYTES]) :]
        except BlockingIOError:
            continue
        except OSError:
            raise Ended from None


def read(fd: int, deadline_s: float | None) -> Any:
    """The next message.

    Raises:
        Late: it has not come by the deadline.
        Ended: there is none, or it is none.
    """
    size = int.from_bytes(_read(fd, 4, deadline_s), "big")
    if size > MAX_BYTES:
        raise Ended
    try:
        return json.loads(_read(fd, size, deadline_s))
    except ValueError:
        raise Ended from None


def _read(fd: int, size: int, deadline_s: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _wait(fd, select.POLLIN, deadline_s)
        part = os.read(fd, min(_PIPE_BYTES, size - len(parts)))
        if not part:
            raise Ended
        parts += part
    return bytes(parts)


def _wait(fd: int, event: int, deadline_s: float | None) -> None:
    if deadline_s is None:  # nor does poll(2) work in a process that may open nothing
        return
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
        raise Late
