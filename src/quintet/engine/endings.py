"""Unfinished requests, and every way in which one ends: at its end, late, aborted, failed.

`end` is the only place that lets go of a sequence that the scheduler knows, at a step boundary.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from quintet.engine.deadlines import Deadlines
from quintet.engine.group import SequenceGroup
from quintet.engine.meter import Meter
from quintet.engine.output import FinishReason, OutputChunk
from quintet.engine.request import Request
from quintet.engine.scheduler import Scheduler
from quintet.engine.sequence import End, Sequence, Status
from quintet.engine.speculation.speculator import Speculator

logger = logging.getLogger(__name__)


class Endings:
    """
    The unfinished requests of an engine.

    Args:
        scheduler, speculator: told of each sequence that ends.
        meter: counts the ends.
        on_idle: called when no request is left.

    Attributes:
        groups: their sequences, by request id.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        speculator: Speculator,
        meter: Meter,
        on_idle: Callable[[], None],
    ) -> None:
        self.groups: dict[str, SequenceGroup] = {}
        self._scheduler = scheduler
        self._speculator = speculator
        self._meter = meter
        self._on_idle = on_idle
        self._deadlines = Deadlines()
        self._queue_deadlines = Deadlines()  # of requests that have not begun to run

    def add(self, request: Request, sequences: list[Sequence]) -> None:
        """Keep a new request, and its deadlines."""
        self.groups[request.request_id] = SequenceGroup(sequences)
        for deadlines, seconds in (
            (self._deadlines, request.timeout_s),
            (self._queue_deadlines, request.queue_timeout_s),
        ):
            if seconds is not None:
                deadlines.add(request.request_id, request.arrival_s + seconds)

    def has_begun(self, request_id: str) -> None:
        """A request's turn has come."""
        self._queue_deadlines.discard(request_id)

    def end_late(self, now_s: float) -> list[OutputChunk]:
        """End the requests whose time is over."""
        late = [self.end_early(name, "timeout") for name in self._deadlines.pop(now_s)]
        return late + [self._end_unstarted(name) for name in self._queue_deadlines.pop(now_s)]

    def end_early(self, request_id: str, finish_reason: FinishReason) -> OutputChunk:
        """End an unfinished request with all its answers."""
        group = self.groups[request_id]
        first = group.unfinished[0]
        self._drop(group, but=first)
        return self.end(first, End(finish_reason), _chunk(first, text=first.text.finish()))

    def _end_unstarted(self, request_id: str) -> OutputChunk:
        """End a request whose turn has not come in time; its first run would forget the name."""
        group = self.groups[request_id]
        sequence = group.unfinished[0]
        self._drop(group, but=sequence)
        queued_s = time.monotonic() - sequence.request.arrival_s
        self._meter.totals.num_queue_timeouts += 1
        chunk = _chunk(sequence, error=f"still queued after {queued_s:.0f} s", is_overload=True)
        return self.end(sequence, End("error"), chunk)

    def fail_unscheduled(self, failures: list[tuple[Sequence, Exception]]) -> list[OutputChunk]:
        """End the sequences that got no blocks; the others have their step next."""
        chunks = []
        for sequence, error in failures:
            logger.error("a sequence could not be scheduled", exc_info=error)
            if sequence.status is not Status.FINISHED:
                chunks.append(self.fail(sequence, f"no KV blocks ({type(error).__name__})"))
        return chunks

    def fail_all(self, error: Exception) -> list[OutputChunk]:
        """End everything: no step can be made."""
        logger.error("no step could be made", exc_info=error)
        self._meter.totals.num_failed_steps += 1
        return [
            self.fail(sequence, uncomputed(error))
            for sequence in tuple(self._scheduler)
            if sequence.status is not Status.FINISHED  # with another answer of its request
        ]

    def fail(self, sequence: Sequence, message: str) -> OutputChunk:
        """End a sequence, and with it its request, by an error."""
        # What it computed is not to be trusted: nobody may find it as a prefix.
        self._scheduler.pool.withdraw(sequence.block_table)
        self._drop(self.groups[sequence.request_id], but=sequence)
        return self.end(sequence, End("error"), _chunk(sequence, error=message))

    def _drop(self, group: SequenceGroup, *, but: Sequence) -> None:
        """End all answers but one without a word."""
        for sequence in group.started:
            if sequence is not but:
                self._let_go(sequence)
        group.unfinished = [but]
        group.release()

    def end(self, sequence: Sequence, end: End, chunk: OutputChunk) -> OutputChunk:
        """Let go of a sequence; returns its chunk completed as the last one."""
        usage = sequence.usage()  # while it still has its blocks
        self._let_go(sequence)
        group = self.groups[sequence.request_id]
        group.unfinished.remove(sequence)
        if not group.unfinished:
            del self.groups[sequence.request_id]
            self._deadlines.discard(sequence.request_id)
            self._queue_deadlines.discard(sequence.request_id)
            self._meter.end(sequence.request, end.finish_reason)
            if not self.groups:
                self._on_idle()
        return dataclasses.replace(
            chunk,
            finish_reason=end.finish_reason,
            stop_reason=end.stop_reason,
            hides_last_token=end.hides_last_token,
            others_go_on=bool(group.unfinished),
            usage=usage,
            timings=sequence.timings(),
        )

    def _let_go(self, sequence: Sequence) -> None:
        self._scheduler.finish(sequence)
        self._speculator.forget(sequence)


def message_of(kind: str) -> str:
    """What a client is told of a `SampledToken.error`."""
    if kind == "memory":
        return "there was no memory to sample a token"
    return f"the model gave no usable logits ({kind} error)"


def uncomputed(error: Exception) -> str:
    """What a client is told where the model raised; its text may name files."""
    return f"the model could not compute a step ({type(error).__name__}); see the log"


def _chunk(sequence: Sequence, **content: Any) -> OutputChunk:
    return OutputChunk(sequence.request_id, index=sequence.index, **content)
