"""Whole answers, collected from an engine's chunks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quintet.engine.output import (
    FinishReason,
    OutputChunk,
    PromptLogprobs,
    Timings,
    TokenLogprob,
    Usage,
    whole_calls,
)
from quintet.parsing.events import ToolCall, ToolCallDelta
from quintet.server.generation import stream_all
from quintet.server.requests import GenerationRequest
from quintet.server.served_model import ServedModel


@dataclass(slots=True)
class Answer:
    """One answer, as far as it has come.

    Args:
        ending: the log probability of a final stop token, which is no text.
    """

    text: str = ""
    reasoning: str = ""
    token_ids: list[int] = field(default_factory=list)
    tool_calls: list[ToolCallDelta] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    ending: TokenLogprob | None = None
    prompt_logprobs: PromptLogprobs | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, put together."""
        return whole_calls(self.tool_calls)

    def add(self, chunk: OutputChunk) -> None:
        """Take in the answer's next chunk."""
        self.text += chunk.text
        self.reasoning += chunk.reasoning
        self.token_ids += chunk.token_ids
        self.tool_calls += chunk.tool_calls
        of_text = text_logprobs(chunk)
        self.logprobs += of_text
        if chunk.logprobs and len(of_text) < len(chunk.logprobs):
            self.ending = chunk.logprobs[-1]
        if chunk.prompt_logprobs is not None:
            self.prompt_logprobs = chunk.prompt_logprobs
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
            self.stop_reason = chunk.stop_reason
            self.usage = chunk.usage
            self.timings = chunk.timings


async def collect(model: ServedModel, requests: Sequence[GenerationRequest]) -> list[Answer]:
    """Run requests together to their ends; `params.n` answers per request, in the requests' order.

    Raises:
        EngineError: a request ended without being finished.
    """
    groups = [[Answer() for _ in range(r.params.n)] for r in requests]
    async with contextlib.aclosing(stream_all(model, requests)) as stream:
        async for index, chunk in stream:
            groups[index][chunk.index].add(chunk)
    return [answer for group in groups for answer in group]


def call_arguments(call: ToolCall) -> dict[str, Any]:
    """A call's arguments as an object; an answer cut short leaves half of one, which is none."""
    try:
        value = json.loads(call.arguments or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def text_logprobs(chunk: OutputChunk) -> Sequence[TokenLogprob]:
    """The log probabilities of a chunk's tokens, without a final stop token that is no text."""
    logprobs = chunk.logprobs or ()
    return logprobs[:-1] if chunk.hides_last_token else logprobs
