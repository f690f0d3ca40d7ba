"""Answers: requests of bodies, and replies whole, as events and as messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quintet.sampling.params import SamplingParams
from quintet.server.answers import Answer
from quintet.server.dialects.woolly.bodies import Message, SamplingConfig
from quintet.server.requests import ChatPrompt, GenerationRequest

_FINISH = {"timeout": "length", "abort": "cancelled"}


@dataclass(slots=True)
class Clock:
    """When an answer was begun."""

    started_s: float = field(default_factory=time.monotonic)

    def times(self, num_tokens: int) -> dict[str, Any]:
        """`generation_time_ms` and the count it goes with."""
        seconds = time.monotonic() - self.started_s
        return {"tokens_generated": num_tokens, "generation_time_ms": round(1000 * seconds)}

    def rate(self, num_tokens: int) -> float:
        """Tokens per second until now."""
        return num_tokens / max(time.monotonic() - self.started_s, 1e-6)


def prompt_request(prompt: str, config: SamplingConfig) -> GenerationRequest:
    """A text to continue.

    Raises:
        RequestError: a value out of range.
    """
    return GenerationRequest(prompt, _params(config), asked=_asked(config))


def chat_request(messages: Sequence[Message], config: SamplingConfig) -> GenerationRequest:
    """A conversation to answer.

    Raises:
        RequestError: a value out of range.
    """
    prompt = ChatPrompt([each.model_dump() for each in messages])
    return GenerationRequest(prompt, _params(config), asked=_asked(config))


def finish_reason(answer: Answer) -> str:
    """Woolly's word for why an answer ended."""
    reason = str(answer.finish_reason)
    return _FINISH.get(reason, reason)


def num_tokens(answer: Answer) -> int:
    """Tokens of the answer, counted by the engine where it ended by itself."""
    return answer.usage.num_generated_tokens if answer.usage else len(answer.token_ids)


def _params(config: SamplingConfig) -> SamplingParams:
    is_greedy = config.temperature == 0
    stop = config.stop or ()
    return SamplingParams(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=1.0 if is_greedy else config.top_p,
        top_k=0 if is_greedy else config.top_k,
        repetition_penalty=config.repeat_penalty,
        stop=[stop] if isinstance(stop, str) else stop,
        seed=config.seed,
    )


def _asked(config: SamplingConfig) -> frozenset[str]:
    """The parameters that the client set itself, by the engine's names."""
    names = {name for name in SamplingConfig.model_fields if name in config.model_fields_set}
    return frozenset("repetition_penalty" if name == "repeat_penalty" else name for name in names)
