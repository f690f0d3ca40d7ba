"""What a client asks of the engine: plain data that may cross a process boundary."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import IntEnum

from quintet.parsing.thinking import Thinking
from quintet.sampling.params import SamplingParams


class Priority(IntEnum):
    """Who goes first; waiting makes up for a lower level (`EngineConfig.ageing_steps`)."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Request:
    """
    One prompt to continue.

    Args:
        request_id: unique among the engine's unfinished requests.
        prompt_token_ids: at least one id of the vocabulary.
        params: how to sample and when to stop.
        priority: against the other requests of this engine.
        cache_salt: prefixes are shared only among requests with the same salt, so
            that the time to the first token tells nobody what others have asked.
        thinking: whether the answer may begin with a thought; a constraint binds what follows.
        visible_token_ids: control tokens that are to be part of the text all the same.
        arrival_s: when it was made, on `time.monotonic`'s clock; start of all timings.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    priority: Priority = Priority.NORMAL
    cache_salt: str = ""
    thinking: Thinking = Thinking.NONE
    visible_token_ids: frozenset[int] = frozenset()
    arrival_s: float = field(default_factory=time.monotonic)
