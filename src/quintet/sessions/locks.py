"""A lock per name that is in use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class NameLocks:
    """Locks by name; a name nobody waits for takes no room."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}  # with the number of users

    def __len__(self) -> int:
        return len(self._locks)

    @contextlib.contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Wait until nobody else holds this name, then hold it.

        It may be let go of in another thread, as a generator does that is finished elsewhere.
        """
        with self._guard:
            lock, num_users = self._locks.get(name) or (threading.Lock(), 0)
            self._locks[name] = lock, num_users + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, num_users = self._locks[name]
                if num_users == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = lock, num_users - 1
