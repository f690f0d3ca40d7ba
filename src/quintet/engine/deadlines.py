"""When requests are to be finished at the latest."""

from __future__ import annotations

import heapq


class Deadlines:
    """Names with a time each, in seconds on any one clock."""

    def __init__(self) -> None:
        self._by_name: dict[str, float] = {}
        self._soonest: list[tuple[float, str]] = []  # a heap; entries outlive their names

    def add(self, name: str, at_s: float) -> None:
        """Give a name its time."""
        self._by_name[name] = at_s
        heapq.heappush(self._soonest, (at_s, name))

    def discard(self, name: str) -> None:
        """Forget a name, if it is known."""
        self._by_name.pop(name, None)
        if len(self._soonest) > 2 * len(self._by_name) + 64:  # long times, all in vain
            self._soonest = [(at_s, name) for name, at_s in self._by_name.items()]
            heapq.heapify(self._soonest)

    def pop(self, now_s: float) -> list[str]:
        """The names whose time has come; they are forgotten."""
        names = []
        while self._soonest and self._soonest[0][0] <= now_s:
            at_s, name = heapq.heappop(self._soonest)
            if self._by_name.get(name) == at_s:  # not discarded, nor used again for a later time
                del self._by_name[name]
                names.append(name)
        return names
