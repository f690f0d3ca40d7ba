"""Completions, OpenAI's older interface: body to engine requests, engine output to replies."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from quintet.engine.output import OutputChunk, TokenLogprob, Usage
from quintet.errors import RequestError
from quintet.server.answers import Answer, text_logprobs
from quintet.server.dialects.openai.bodies import MAX_CHOICES, CompletionBody
from quintet.server.dialects.openai.replies import (
    ReplyHeader,
    TokenBytes,
    token_name,
    usage_body,
    wire_logprob,
)
from quintet.server.dialects.openai.sampling import refuse, sampling_params
from quintet.server.engines import GenerationRequest

DEFAULT_MAX_TOKENS = 16  # OpenAI's, which chat completions do not have


def completion_requests(body: CompletionBody) -> list[GenerationRequest]:
    """The engine requests of a body: `n` answers to each prompt, prompt by prompt.

    Raises:
        RequestError: values out of range, no prompt, or too many answers at once.
        UnsupportedParameterError: fields that cannot be honoured.
    """
    if body.echo:
        raise refuse("echo", "log probabilities of the prompt are not available")
    if body.suffix:
        raise refuse("suffix", "not supported")
    if body.best_of not in (None, body.n or 1):
        raise refuse("best_of", "only the value of n is supported")
    prompts = _prompts(body)
    num_choices = len(prompts) * (body.n or 1)
    if not 1 <= num_choices <= MAX_CHOICES:
        raise RequestError(
            f"expected 1 to {MAX_CHOICES} answers (prompts times n), found {num_choices}",
            parameter="prompt",
        )
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    all_params = sampling_params(body, max_tokens=max_tokens, logprobs=body.logprobs)
    return [GenerationRequest(prompt, params) for prompt in prompts for params in all_params]


def completion_reply(
    header: ReplyHeader,
    answers: Sequence[Answer],
    num_per_prompt: int,
    wants_logprobs: bool,
    token_bytes: TokenBytes,
) -> dict[str, Any]:
    """The whole reply of a request that does not stream."""
    choices = [
        {
            "index": index,
            "text": answer.text,
            "logprobs": LogprobsWriter(token_bytes).write(answer.logprobs)
            if wants_logprobs
            else None,
            "finish_reason": answer.finish_reason,
        }
        for index, answer in enumerate(answers)
    ]
    return header.reply(choices, usage=usage_body([a.usage for a in answers], num_per_prompt))


class CompletionChunks:
    """The chunks of a streamed reply: text, the last of each choice with its finish reason."""

    def __init__(
        self,
        header: ReplyHeader,
        *,
        num_choices: int,
        num_per_prompt: int,
        wants_logprobs: bool,
        wants_usage: bool,
        token_bytes: TokenBytes,
    ) -> None:
        self._header = header
        self._num_per_prompt = num_per_prompt
        self._wants_logprobs = wants_logprobs
        self._wants_usage = wants_usage
        self._writers = [LogprobsWriter(token_bytes) for _ in range(num_choices)]
        self._usages: list[Usage | None] = [None] * num_choices

    def start(self) -> Iterator[dict[str, Any]]:
        """Nothing: completions have no opening chunk."""
        return iter(())

    def add(self, index: int, chunk: OutputChunk) -> Iterator[dict[str, Any]]:
        """What an engine chunk adds to choice `index`; nothing while its text is undecided."""
        logprobs = text_logprobs(chunk) if self._wants_logprobs else ()
        if chunk.finish_reason is not None:
            self._usages[index] = chunk.usage
        if chunk.text or logprobs or chunk.finish_reason is not None:
            choice = {
                "index": index,
                "text": chunk.text,
                "logprobs": self._writers[index].write(logprobs) if logprobs else None,
                "finish_reason": chunk.finish_reason,
            }
            yield self._header.reply([choice])

    def end(self) -> Iterator[dict[str, Any]]:
        """The usage, in a chunk without choices."""
        if self._wants_usage:
            yield self._header.reply([], usage=usage_body(self._usages, self._num_per_prompt))


class LogprobsWriter:
    """Log probabilities in the older shape, whose offsets run on from chunk to chunk."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def write(self, logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
        """Parallel lists; `text_offset` counts characters from the start of the answer."""
        tokens: list[str] = []
        values: list[float] = []
        tops: list[dict[str, float]] = []
        offsets: list[int] = []
        for item in logprobs:
            raw = self._token_bytes(item.token_id)
            tokens.append(token_name(raw))
            values.append(wire_logprob(item.logprob))
            tops.append(
                {
                    token_name(self._token_bytes(token_id)): wire_logprob(logprob)
                    for token_id, logprob in item.top
                }
            )
            offsets.append(self._num_chars)
            self._num_chars += len(self._decoder.decode(raw))
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": offsets,
        }


def _prompts(body: CompletionBody) -> list[str | list[int]]:
    """Four wire shapes, one meaning: an empty list is no prompt at all."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [[token for token in prompt if isinstance(token, int)]]
    return [item for item in prompt if not isinstance(item, int)]
