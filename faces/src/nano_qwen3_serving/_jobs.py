"""Prompts on their way to the engine."""

from __future__ import annotations

from dataclasses import dataclass

from nano_qwen3_serving.core.scheduler import RequestPriority
from nano_qwen3_serving.exceptions import InvalidParametersError
from nano_qwen3_serving.sampling_params import SamplingParams
from quintet import Priority
from quintet import SamplingParams as QuintetParams
from quintet.engine.request import RequestOptions


@dataclass(frozen=True)
class Job:
    """
    A prompt on its way to the engine.

    Args:
        request_id: of its result.
        prompt: its text.
        token_ids: as the model reads it.
        params: as the program gave them.
        max_tokens: of the answer.
        priority: for the engine.
    """

    request_id: int
    prompt: str
    token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    priority: Priority

    @property
    def sampling(self) -> QuintetParams:
        """How to sample."""
        return self.params.sampling(self.max_tokens)

    @property
    def options(self) -> RequestOptions:
        """How to serve it."""
        return {"priority": self.priority, "cache_salt": self.params.cache_salt}


def quintet_priority(priority: RequestPriority) -> Priority:
    """The same for the engine.

    Raises:
        InvalidParametersError: none of the three.
    """
    if not isinstance(priority, RequestPriority):
        raise InvalidParametersError(
            f"priority: expected RequestPriority.LOW, NORMAL or HIGH, found {priority!r}"
        )
    return Priority[priority.name]
