"""The engine as its users see it, wherever it runs.

Everything that crosses this interface is plain data, so that the engine may be
a thread of this process (`thread.py`) or a process of its own.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from quintet.engine.admission import EngineLimits
from quintet.engine.embedding import EmbeddingRequest
from quintet.engine.request import Request
from quintet.engine.stats import EngineStats
from quintet.engine.stream import RequestStream

EngineState: TypeAlias = Literal["loading", "ready", "restarting", "closed"]
"""Before it has been ready; taking requests; between two workers; taking none for good."""


class EngineClient(Protocol):
    """A running engine.  All methods may be called from any thread."""

    @property
    def limits(self) -> EngineLimits:
        """What the engine takes."""

    def check(self, request: Request) -> None:
        """
        Refuse what can never be served, its constraint included.

        Compiling that may take a second: not for the thread of an event loop.

        Raises:
            RequestError: it can never be served (ContextLengthError: its length).
        """

    def submit(self, request: Request) -> RequestStream:
        """
        Start a request; returns at once where `check` has seen its constraint.

        Raises:
            RequestError: it can never be served (ContextLengthError: its length), or its
                id is in use.
            CapacityError: the queue is full; carries `retry_after_s`.
            EngineError: the engine is closed.
        """

    def embed(self, request: EmbeddingRequest) -> RequestStream:
        """
        Start an embedding request; returns at once.  Its chunks carry `vectors`.

        Raises: as `submit`.
        """

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or its loop has failed."""

    @property
    def state(self) -> EngineState:
        """Whether it takes requests now, and if not, whether it will."""

    def stats(self) -> EngineStats:
        """The counters after the latest step."""

    def audit(self, timeout_s: float = 10.0) -> None:
        """
        Have the engine check its books between two steps; see `Engine.audit`.

        Raises:
            EngineError: an account is wrong, there is no answer within `timeout_s`, or the
                engine is closed.
            CapacityError: it is being restarted.
        """

    def close(self) -> None:
        """End what is running with EngineError and free the model.  Idempotent."""
