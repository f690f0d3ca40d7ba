"""What a client asks of the engine: plain data that may cross a process boundary."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, TypeAlias, TypedDict, get_args

from quintet.errors import RequestError
from quintet.parsing.thinking import Thinking
from quintet.sampling.params import SamplingParams


class Priority(IntEnum):
    """Who goes first; waiting makes up for a lower level (`EngineConfig.ageing_steps`)."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


Overflow: TypeAlias = Literal["error", "slide"]


class RequestOptions(TypedDict, total=False):
    """How a request is served, as keywords; see Request.  What is sampled is in `params`."""

    priority: Priority
    timeout_s: float | None
    queue_timeout_s: float | None
    overflow: Overflow
    num_keep_tokens: int
    cache_salt: str
    max_thinking_tokens: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """
    One prompt to continue.

    Args:
        request_id: unique among the engine's unfinished requests.
        prompt_token_ids: at least one id of the vocabulary.
        params: how to sample and when to stop.
        priority: against the other requests of this engine.
        timeout_s: seconds after which it ends with "timeout" and what it has by then, time in
            the queue included.  None: never.
        queue_timeout_s: seconds after which it ends with an error if it has not begun to run: the
            reader of its stream gets CapacityError.  None: it waits.
        overflow: what happens when the context is full.  "error": a prompt that does not
            fit is refused, an answer ends with "length".  "slide": the oldest tokens behind
            the first `num_keep_tokens` are dropped in whole blocks, the rest is computed
            anew as if those had never stood there, and the answer goes on;
            `Usage.num_dropped_tokens` says how many.
        num_keep_tokens: tokens at the start of the prompt that "slide" never drops.
        cache_salt: prefixes are shared only among requests with the same salt, so
            that the time to the first token tells nobody what others have asked.
        thinking: whether the answer may begin with a thought; a constraint binds what follows.
        max_thinking_tokens: a thought that has so many tokens is closed, by its end mark and
            nothing else, and the answer begins.  None: it ends when the model likes.
        visible_token_ids: control tokens that are to be part of the text all the same.
        arrival_s: when it was made, on `time.monotonic`'s clock; start of all timings.

    Raises:
        RequestError: an option out of range, or "slide" without a bound on the answer.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    priority: Priority = Priority.NORMAL
    cache_salt: str = ""
    thinking: Thinking = Thinking.NONE
    visible_token_ids: frozenset[int] = frozenset()
    arrival_s: float = field(default_factory=time.monotonic)
    timeout_s: float | None = None
    queue_timeout_s: float | None = None
    overflow: Overflow = "error"
    num_keep_tokens: int = 0
    max_thinking_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.priority not in tuple(Priority):
            raise RequestError(
                f"expected LOW, NORMAL or HIGH, found {self.priority!r}", parameter="priority"
            )
        for name in ("timeout_s", "queue_timeout_s"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise RequestError(
                    f"expected a positive number of seconds, found {seconds!r}", parameter=name
                )
        if self.overflow not in get_args(Overflow):
            raise RequestError(
                f'expected "error" or "slide", found {self.overflow!r}', parameter="overflow"
            )
        for name in ("num_keep_tokens", "max_thinking_tokens"):
            count = getattr(self, name)
            if count is not None and count < 0:
                raise RequestError(f"expected at least 0, found {count}", parameter=name)
        if self.overflow == "slide" and self.params.max_tokens is None:
            # It would end when the model likes, which may be never.
            raise RequestError('expected max_tokens with "slide", found None', parameter="overflow")
