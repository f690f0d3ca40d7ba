"""Chat completions: engine output to replies, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from quintet.engine.output import OutputChunk, TokenLogprob
from quintet.server.answers import Answer, text_logprobs
from quintet.server.dialects.openai.replies import (
    ReplyHeader,
    TokenBytes,
    UsageMeter,
    chat_logprobs,
)
from quintet.server.dialects.openai.structure import deltas, finish_reason, message


def chat_reply(
    header: ReplyHeader, answers: Sequence[Answer], wants_logprobs: bool, token_bytes: TokenBytes
) -> dict[str, Any]:
    """The whole reply of a request that does not stream."""
    choices = [
        {
            "index": index,
            "message": message(answer.text, answer.reasoning, answer.calls),
            "logprobs": _logprobs(answer.logprobs, token_bytes) if wants_logprobs else None,
            "finish_reason": finish_reason(answer.finish_reason, bool(answer.tool_calls)),
        }
        for index, answer in enumerate(answers)
    ]
    meter = UsageMeter(len(answers), len(answers))
    for index, answer in enumerate(answers):
        meter.end(index, answer.usage)
    return header.reply(choices, usage=meter.total())


class ChatChunks:
    """The chunks of a streamed reply: role, deltas, finish, and usage if asked for."""

    def __init__(
        self,
        header: ReplyHeader,
        *,
        num_choices: int,
        wants_logprobs: bool,
        wants_usage: bool,
        token_bytes: TokenBytes,
        prompt_lengths: Sequence[int] | None = None,
    ) -> None:
        self._header = header
        self._num_choices = num_choices
        self._wants_logprobs = wants_logprobs
        self._wants_usage = wants_usage
        self._token_bytes = token_bytes
        self._meter = UsageMeter(num_choices, num_choices, prompt_lengths=prompt_lengths)
        self._has_calls = [False] * num_choices

    def start(self) -> Iterator[dict[str, Any]]:
        """Every choice says who speaks."""
        for index in range(self._num_choices):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def add(self, index: int, chunk: OutputChunk) -> Iterator[dict[str, Any]]:
        """What an engine chunk adds to choice `index`; nothing while its text is undecided."""
        self._meter.add(index, chunk)
        logprobs = text_logprobs(chunk) if self._wants_logprobs else ()
        parts = list(deltas(chunk)) or ([{"content": ""}] if logprobs else [])
        for part in parts:
            yield self._chunk(index, part, logprobs=logprobs)
            logprobs = ()
        self._has_calls[index] |= bool(chunk.tool_calls)
        if chunk.finish_reason is not None:
            reason = finish_reason(chunk.finish_reason, self._has_calls[index])
            yield self._chunk(index, {}, finish_reason=reason)

    def end(self) -> Iterator[dict[str, Any]]:
        """The usage, in a chunk without choices."""
        if self._wants_usage:
            yield self._header.reply([], usage=self._meter.total())

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(logprobs, self._token_bytes) if logprobs else None,
            "finish_reason": finish_reason,
        }
        usage = self._meter.so_far()
        return self._header.reply([choice], **({} if usage is None else {"usage": usage}))


def _logprobs(logprobs: Iterable[TokenLogprob], token_bytes: TokenBytes) -> dict[str, Any]:
    return {"content": chat_logprobs(logprobs, token_bytes), "refusal": None}
