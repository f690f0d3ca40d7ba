"""A bounded channel between tasks, as tokio's mpsc: `tx, rx = channel(100)`.

Source: tokio documentation, `tokio::sync::mpsc`.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
from collections import deque
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):  # noqa: N818 - says what it says
    """The other end has been closed."""


class _Shared(Generic[T]):
    def __init__(self, capacity: int) -> None:
        self.items: deque[T] = deque()
        self.capacity = capacity
        self.is_closed = False
        self.changed = asyncio.Condition()


class Sender(Generic[T]):
    """The end that sends; waits while the channel is full."""

    def __init__(self, shared: _Shared[T]) -> None:
        self._shared = shared

    async def send(self, item: T) -> None:
        """
        Put an item in.

        Raises:
            ChannelClosed: nobody will read it.
        """
        shared = self._shared
        async with shared.changed:
            await shared.changed.wait_for(
                lambda: shared.is_closed or len(shared.items) < shared.capacity
            )
            if shared.is_closed:
                raise ChannelClosed
            shared.items.append(item)
            shared.changed.notify_all()

    async def close(self) -> None:
        """Nothing more will come: who reads gets what is there, and then None."""
        await _close(self._shared)


class Receiver(Generic[T]):
    """The end that reads, with `recv` or with `async for`."""

    def __init__(self, shared: _Shared[T]) -> None:
        self._shared = shared

    async def recv(self) -> T | None:
        """The next item; None at the end."""
        shared = self._shared
        async with shared.changed:
            await shared.changed.wait_for(lambda: shared.items or shared.is_closed)
            item = shared.items.popleft() if shared.items else None
            shared.changed.notify_all()
            return item

    async def close(self) -> None:
        """Read no more: who sends is told."""
        await _close(self._shared)

    def __aiter__(self) -> Receiver[T]:
        return self

    async def __anext__(self) -> T:
        item = await self.recv()
        if item is None:
            raise StopAsyncIteration
        return item


def channel(capacity: int) -> tuple[Sender[Any], Receiver[Any]]:
    """A channel that holds this many items."""
    if capacity < 1:
        raise ValueError(f"expected a capacity of at least 1, found {capacity}")
    shared: _Shared[Any] = _Shared(capacity)
    return Sender(shared), Receiver(shared)


class Outlet:
    """
    Whatever tokens are sent to.

    Args:
        tx: has `send` (a Sender, a WebSocket...) or `put` (an asyncio.Queue, a queue.Queue...), a
            function or a coroutine function; or is one itself.

    Raises:
        TypeError: it has and is neither.
    """

    def __init__(self, tx: Any) -> None:
        self._tx = tx
        self._is_queue = not hasattr(tx, "send") and hasattr(tx, "put")
        self._send = getattr(tx, "send", None) or getattr(tx, "put", None) or tx
        if not callable(self._send):
            raise TypeError(f"expected an object with send or put, found {type(tx).__name__}")

    async def send(self, token: str | None) -> None:
        """Hand a token over, waiting until there is room."""
        if isinstance(self._tx, queue.Queue):  # its put would hold up the event loop
            await asyncio.to_thread(self._tx.put, token)
            return
        result = self._send(token)
        if inspect.isawaitable(result):
            await result

    async def close(self) -> None:
        """Say that nothing more comes: None to a queue, `close` to what has that."""
        if self._is_queue:
            await self.send(None)
            return
        close = getattr(self._tx, "close", None)
        if close is not None:
            result = close()
            if inspect.isawaitable(result):
                await result


async def _close(shared: _Shared[Any]) -> None:
    async with shared.changed:
        shared.is_closed = True
        shared.changed.notify_all()
