"""Responses kept so that a conversation can go on from them: in memory, bounded, for a while."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quintet.server.errors import HTTPRefusal

MAX_RESPONSES: Final = 1024
MAX_BYTES: Final = 64 * 1024 * 1024
TTL_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """
    A response and what led to it.

    Args:
        response: as it is sent.
        input_items: what its request brought.
        history: all items before its output, those of earlier responses included.
        num_bytes: of memory, history included even where others share it.
    """

    response: dict[str, Any]
    input_items: Sequence[dict[str, Any]]
    history: Sequence[dict[str, Any]]
    num_bytes: int

    @property
    def items(self) -> list[dict[str, Any]]:
        """The conversation up to and including its output."""
        return [*self.history, *self.response["output"]]


class ResponseStore:
    """
    The latest responses; the least recently used go first.

    Args:
        max_responses: kept at a time.
        max_bytes: of their items as JSON.
        ttl_s: how long one is kept after its last use.
        clock: seconds.
    """

    def __init__(
        self,
        max_responses: int = MAX_RESPONSES,
        max_bytes: int = MAX_BYTES,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, StoredResponse]] = OrderedDict()
        self._num_bytes = 0

    def put(
        self,
        response: dict[str, Any],
        input_items: Sequence[dict[str, Any]],
        history: Sequence[dict[str, Any]],
    ) -> None:
        """Keep a response, in the place of one with its id; one that is too large is not kept."""
        num_bytes = len(json.dumps([response, history]))
        stored = StoredResponse(response, input_items, history, num_bytes)
        self.delete(response["id"])
        if num_bytes > self._max_bytes:
            return
        self._kept[response["id"]] = self._clock(), stored
        self._num_bytes += num_bytes
        while len(self._kept) > self._max_responses or self._num_bytes > self._max_bytes:
            self._drop_oldest()

    def get(self, response_id: str) -> StoredResponse | None:
        """The response of that id; None where it never was, was deleted or is gone by now."""
        self._expire()
        if response_id not in self._kept:
            return None
        _, stored = self._kept[response_id]
        self._kept[response_id] = self._clock(), stored
        self._kept.move_to_end(response_id)
        return stored

    def delete(self, response_id: str) -> bool:
        """Forget a response; whether it was there."""
        _, stored = self._kept.pop(response_id, (0.0, None))
        if stored is None:
            return False
        self._num_bytes -= stored.num_bytes
        return True

    def _expire(self) -> None:
        while self._kept:
            used_s, _ = next(iter(self._kept.values()))
            if self._clock() - used_s < self._ttl_s:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (_, stored) = self._kept.popitem(last=False)
        self._num_bytes -= stored.num_bytes


def found_previous(response_id: str, stores: Sequence[ResponseStore]) -> StoredResponse:
    """The response to go on from.

    Raises:
        HTTPRefusal: 400, it is in none of the stores.
    """
    for store in stores:
        if (stored := store.get(response_id)) is not None:
            return stored
    raise HTTPRefusal(
        400,
        "previous_response_id: no such response is kept; send the whole conversation as input",
        code="previous_response_not_found",
    )
