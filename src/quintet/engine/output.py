"""What the engine answers: a chunk per step and request, plain data like the request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quintet.engine.request import Request
from quintet.parsing.events import ToolCall, ToolCallDelta

FinishReason: TypeAlias = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """
    A generated token's log probability (natural logarithm).

    Args:
        token_id: the token.
        logprob: its log probability.
        top: the most likely tokens, (token_id, logprob), best first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens a request took.

    Args:
        num_prompt_tokens: of the prompt.
        num_cached_tokens: those of the prompt that the prefix cache spared.
        num_generated_tokens: of the answer, a final stop token included.
        num_reasoning_tokens: of those, the ones of a chat model's thought.
    """

    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """
    Where a request's time went, in seconds; the sum is its life in the engine.

    Args:
        queue_s: from arrival to the first step that computed any of its tokens.
        prefill_s: from there to its first generated token.
        decode_s: from there to its end.
    """

    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """
    What one step added to a request.  The last one carries `finish_reason`.

    Args:
        request_id: whose it is.
        text: new text, perhaps empty: half a character, or what may be the start of
            a stop string, is held back until it is decided.
        token_ids: the tokens generated in this step, a final stop token included.
        logprobs: one per token when `SamplingParams.logprobs` asks for them.
        finish_reason: "stop" (end-of-text token, stop token or stop string), "length",
            "abort" or "error"; None while the request goes on.
        stop_reason: the stop string or the id from `stop_token_ids` that matched.
        error: what went wrong, with "error".
        usage, timings: on the last chunk.
        reasoning: in a chat, new text of the thought, which `text` is without.
        tool_calls: in a chat with tools, what is new of calls, which `text` is without.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    error: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    @property
    def token_id(self) -> int | None:
        """The newest token; None in a chunk that brings none."""
        return self.token_ids[-1] if self.token_ids else None


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """
    A finished request.

    Args:
        request_id: as submitted.
        prompt_token_ids: the prompt as the model saw it.
        text: the answer, without the stop string or token that ended it.
        token_ids: the answer's tokens, a final stop token included.
        logprobs: one per token, or None when not asked for.
        finish_reason, stop_reason, usage, timings: see OutputChunk.
        reasoning: in a chat, what the model thought before it answered.
        tool_calls: in a chat with tools, the calls it made.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    usage: Usage
    timings: Timings
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Answer:
    """
    Puts the chunks of a request together.

    Args:
        request: whose chunks these are.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._chunks: list[OutputChunk] = []

    def add(self, chunk: OutputChunk) -> None:
        """Take the next chunk."""
        self._chunks.append(chunk)

    def output(self) -> RequestOutput:
        """The whole.

        Raises:
            ValueError: the last chunk has not come yet.
        """
        last = self._chunks[-1] if self._chunks else OutputChunk(self._request.request_id)
        if last.finish_reason is None or last.usage is None or last.timings is None:
            raise ValueError(f"{self._request.request_id} has not finished")
        logprobs = [item for chunk in self._chunks for item in chunk.logprobs or ()]
        return RequestOutput(
            request_id=self._request.request_id,
            prompt_token_ids=self._request.prompt_token_ids,
            text="".join(chunk.text for chunk in self._chunks),
            token_ids=tuple(token for chunk in self._chunks for token in chunk.token_ids),
            logprobs=None if self._request.params.logprobs is None else tuple(logprobs),
            finish_reason=last.finish_reason,
            stop_reason=last.stop_reason,
            usage=last.usage,
            timings=last.timings,
            reasoning="".join(chunk.reasoning for chunk in self._chunks),
            tool_calls=_whole_calls(delta for chunk in self._chunks for delta in chunk.tool_calls),
        )


def _whole_calls(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCall, ...]:
    heads: list[ToolCallDelta] = []
    arguments: list[list[str]] = []
    for delta in deltas:
        if delta.name is not None:
            heads.append(delta)
            arguments.append([])
        arguments[delta.index].append(delta.arguments)
    return tuple(
        ToolCall(head.id or "", head.name or "", "".join(pieces))
        for head, pieces in zip(heads, arguments, strict=True)
    )
