"""What the engine answers: a chunk per step and request, plain data like the request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from quintet.engine.embedding import Vectors
from quintet.engine.request import Request
from quintet.parsing.events import ToolCall, ToolCallDelta

FinishReason: TypeAlias = Literal["stop", "length", "timeout", "abort", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """
    A token's log probability (natural logarithm), generated or of the prompt.

    Args:
        token_id: the token.
        logprob: its log probability.
        top: the most likely tokens, (token_id, logprob), best first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


PromptLogprobs: TypeAlias = tuple[TokenLogprob | None, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens a request took.

    Args:
        num_prompt_tokens: of the prompt.
        num_cached_tokens: those of the prompt that the prefix cache spared.
        num_generated_tokens: of the answer, a final stop token included.
        num_reasoning_tokens: of those, the ones of a chat model's thought.
        num_dropped_tokens: of prompt and answer, those that a sliding context gave up on the
            way; see `Request.overflow`.
        block_ids: KV blocks that held prompt and answer when it ended; nobody's since then.
    """

    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_reasoning_tokens: int = 0
    num_dropped_tokens: int = 0
    # No part of what was answered: it differs from run to run.
    block_ids: tuple[int, ...] = field(default=(), compare=False, repr=False)


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


@dataclass(slots=True)  # not frozen: there is one for each token, and that takes six times as long
class OutputChunk:
    """
    What one step added to an answer.  The last one carries `finish_reason`.

    Args:
        request_id: whose it is.
        text: new text, perhaps empty: half a character, or what may be the start of
            a stop string, is held back until it is decided.
        token_ids: the tokens generated in this step, a final stop token included.
        logprobs: one per token when `SamplingParams.logprobs` asks for them.
        finish_reason: "stop" (end-of-text token, stop token or stop string), "length",
            "timeout", "abort" or "error"; None while the request goes on.
        stop_reason: the stop string or the id from `stop_token_ids` that matched.
        error: what went wrong, with "error".
        is_overload: with "error": nothing is wrong with it, its turn did not come in time.
        usage, timings: of the answer, on its last chunk.
        index: of the answer, 0 to `SamplingParams.n` - 1.
        hides_last_token: the last of `token_ids` ended the answer and is no part of the text.
        others_go_on: on an answer's last chunk: the request has answers that are not finished.
        prompt_logprobs: with an answer's first token, one per token of the prompt, the first None,
            when `SamplingParams.prompt_logprobs` asks for them.
        reasoning: in a chat, new text of the thought, which `text` is without.
        tool_calls: in a chat with tools, what is new of calls, which `text` is without.
        vectors: of an embedding request, those that a pass has made.
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
    index: int = 0
    others_go_on: bool = False
    prompt_logprobs: PromptLogprobs | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    hides_last_token: bool = False
    vectors: Vectors | None = None
    is_overload: bool = False

    @property
    def is_last(self) -> bool:
        """Whether no chunk of the request follows."""
        return self.finish_reason is not None and not self.others_go_on

    @property
    def token_id(self) -> int | None:
        """The newest token; None in a chunk that brings none."""
        return self.token_ids[-1] if self.token_ids else None


@dataclass(frozen=True, slots=True)
class Completion:
    """
    One answer of a request.

    Args:
        index: 0 to `SamplingParams.n` - 1.
        text: without the stop string or token that ended it.
        token_ids: a final stop token included.
        logprobs: one per token, or None when not asked for.
        finish_reason, stop_reason: see OutputChunk.
        reasoning: in a chat, what the model thought before it answered.
        tool_calls: in a chat with tools, the calls it made.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """
    A finished request.

    Args:
        request_id: as submitted.
        prompt_token_ids: the prompt as the model saw it, unless a sliding context dropped some.
        prompt_logprobs: see OutputChunk.
        choices: the answers, by index; the first one's fields can be read here as well.
        usage: the prompt's tokens once, those of all answers.
        timings: of the answer that took longest.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    prompt_logprobs: PromptLogprobs | None
    choices: tuple[Completion, ...]
    usage: Usage
    timings: Timings

    @property
    def text(self) -> str:
        """The first answer's text."""
        return self.choices[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The first answer's tokens, a final stop token included."""
        return self.choices[0].token_ids

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """The first answer's log probabilities, or None when not asked for."""
        return self.choices[0].logprobs

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first answer ended."""
        return self.choices[0].finish_reason

    @property
    def stop_reason(self) -> str | int | None:
        """What the first answer ended with."""
        return self.choices[0].stop_reason

    @property
    def reasoning(self) -> str:
        """In a chat, what the model thought before its first answer."""
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """In a chat with tools, the first answer's calls."""
        return self.choices[0].tool_calls


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
        request = self._request
        ends = {c.index: c for c in self._chunks if c.finish_reason is not None}
        if not any(chunk.is_last for chunk in ends.values()):
            raise ValueError(f"{request.request_id} has not finished")
        usages = {index: chunk.usage for index, chunk in ends.items() if chunk.usage is not None}
        timings = [chunk.timings for chunk in ends.values() if chunk.timings is not None]
        scored = [c.prompt_logprobs for c in self._chunks if c.prompt_logprobs is not None]
        return RequestOutput(
            request_id=request.request_id,
            prompt_token_ids=request.prompt_token_ids,
            prompt_logprobs=scored[0] if scored else None,
            choices=tuple(self._choice(index, ends) for index in range(request.params.n)),
            usage=Usage(
                len(request.prompt_token_ids),
                usages[min(usages)].num_cached_tokens,
                sum(usage.num_generated_tokens for usage in usages.values()),
                num_reasoning_tokens=sum(u.num_reasoning_tokens for u in usages.values()),
                num_dropped_tokens=sum(u.num_dropped_tokens for u in usages.values()),
                block_ids=tuple(dict.fromkeys(b for u in usages.values() for b in u.block_ids)),
            ),
            timings=max(timings, key=lambda t: t.queue_s + t.prefill_s + t.decode_s),
        )

    def _choice(self, index: int, ends: dict[int, OutputChunk]) -> Completion:
        chunks = [chunk for chunk in self._chunks if chunk.index == index]
        logprobs = tuple(item for chunk in chunks for item in chunk.logprobs or ())
        # A request that is aborted or late has one end for all its answers.
        end = ends.get(index)
        early = next((c.finish_reason for c in ends.values() if c.is_last), None)
        return Completion(
            index=index,
            text="".join(chunk.text for chunk in chunks),
            token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
            logprobs=None if self._request.params.logprobs is None else logprobs,
            finish_reason=(early if end is None else end.finish_reason) or "abort",
            stop_reason=None if end is None else end.stop_reason,
            reasoning="".join(chunk.reasoning for chunk in chunks),
            tool_calls=whole_calls(delta for chunk in chunks for delta in chunk.tool_calls),
        )


def whole_calls(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCall, ...]:
    """The tool calls of one answer, put together."""
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
