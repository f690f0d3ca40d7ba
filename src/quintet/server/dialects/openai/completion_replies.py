"""Completions: engine output to replies, whole and streamed, with the prompt before them or not.

`logprobs` covers every generated token, a final stop token included, as OpenAI's and vLLM's
do: lm-evaluation-harness reads the prompt's and drops the last one, whatever it is.

Sources: OpenAI API reference, "The completion object"; lm-evaluation-harness,
lm_eval/models/openai_completions.py (how echo and logprobs are read).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from quintet.engine.output import OutputChunk, PromptLogprobs, TokenLogprob
from quintet.server.answers import Answer
from quintet.server.dialects.openai.replies import (
    ReplyHeader,
    TokenBytes,
    UsageMeter,
    token_name,
    wire_logprob,
)
from quintet.server.dialects.openai.structure import finish_reason
from quintet.server.engines import ServedTokenizer
from quintet.server.requests import Prompt


@dataclass(frozen=True, slots=True)
class Shape:
    """
    What a client wants to see of the answers.

    Args:
        num_per_prompt: answers to each prompt.
        wants_logprobs: of every token.
        hides_answer: only the prompt is wanted.
    """

    num_per_prompt: int
    wants_logprobs: bool = False
    hides_answer: bool = False


class Echo:
    """
    A prompt as it stands before its answers.

    Args:
        tokenizer: of the model.
        sent: what the client sent; text comes back as it is.
        prompt: what the engine got: token ids where log probabilities are wanted.
    """

    def __init__(self, tokenizer: ServedTokenizer, sent: Prompt, prompt: Prompt) -> None:
        self._tokenizer = tokenizer
        self._sent = sent
        self._token_ids = prompt if isinstance(prompt, list) else []
        self.logprobs: PromptLogprobs = ()

    @property
    def text(self) -> str:
        """The prompt's text.  Its ids must have been accepted by the engine."""
        if isinstance(self._sent, str):
            return self._sent
        return self._tokenizer.decode(self._token_ids)

    @property
    def scored_tokens(self) -> list[tuple[int, TokenLogprob | None]]:
        """Each token of the prompt with its log probability, which the first one lacks.

        All of them do where time ran out before the prompt was computed.
        """
        logprobs = self.logprobs or (None,) * len(self._token_ids)
        return list(zip(self._token_ids, logprobs, strict=True))


def completion_reply(
    header: ReplyHeader,
    shape: Shape,
    answers: Sequence[Answer],
    shown: Sequence[int],
    echoes: Sequence[Echo],
    token_bytes: TokenBytes,
) -> dict[str, Any]:
    """The whole reply of a request that does not stream.

    Args:
        header: of the reply.
        shape: what the client wants to see.
        answers: to each prompt in turn; all of them are paid for.
        shown: which answers the client gets, `shape.num_per_prompt` of each prompt.
        echoes: one per prompt, or none.
        token_bytes: of the model.
    """
    num_paid = len(answers) * shape.num_per_prompt // len(shown)
    meter = UsageMeter(len(answers), num_paid, num_hidden_tokens=int(shape.hides_answer))
    for index, answer in enumerate(answers):
        meter.end(index, answer.usage)
        if echoes and answer.prompt_logprobs is not None:
            echoes[index // num_paid].logprobs = answer.prompt_logprobs
    choices = []
    for choice, index in enumerate(shown):
        answer = answers[index]
        text, scored = answer.text, [*answer.logprobs, *filter(None, [answer.ending])]
        if shape.hides_answer:
            text, scored = "", []
        writer = LogprobsWriter(token_bytes)
        logprobs = None
        if echoes:
            echo = echoes[choice // shape.num_per_prompt]
            if shape.wants_logprobs:
                logprobs = writer.write_prompt(echo)
            text = echo.text + text
        if shape.wants_logprobs:
            logprobs = joined(logprobs, writer.write(scored))
        choices.append(
            {
                "index": choice,
                "text": text,
                "logprobs": logprobs,
                "finish_reason": "length"
                if shape.hides_answer
                else finish_reason(answer.finish_reason, has_calls=False),
            }
        )
    return header.reply(choices, usage=meter.total())


class CompletionChunks:
    """The chunks of a streamed reply: text, the last of each choice with its finish reason."""

    def __init__(
        self,
        header: ReplyHeader,
        shape: Shape,
        *,
        num_choices: int,
        wants_usage: bool,
        token_bytes: TokenBytes,
        echoes: Sequence[Echo] = (),
        prompt_lengths: Sequence[int] | None = None,
    ) -> None:
        self._header = header
        self._shape = shape
        self._wants_usage = wants_usage
        self._echoes = echoes
        self._writers = [LogprobsWriter(token_bytes) for _ in range(num_choices)]
        self._is_open = [False] * num_choices
        self._meter = UsageMeter(
            num_choices,
            shape.num_per_prompt,
            prompt_lengths=prompt_lengths,
            num_hidden_tokens=int(shape.hides_answer),
        )

    def start(self) -> Iterator[dict[str, Any]]:
        """Nothing: completions have no opening chunk."""
        return iter(())

    def add(self, choice: int, chunk: OutputChunk) -> Iterator[dict[str, Any]]:
        """What an engine chunk adds to a choice; nothing while its text is undecided."""
        self._meter.add(choice, chunk)
        wants_logprobs = self._shape.wants_logprobs
        text, scored = chunk.text, chunk.logprobs or () if wants_logprobs else ()
        if self._shape.hides_answer:
            text, scored = "", ()
        logprobs = None
        if self._echoes and not self._is_open[choice]:
            echo = self._echoes[choice // self._shape.num_per_prompt]
            if chunk.prompt_logprobs is not None:
                echo.logprobs = chunk.prompt_logprobs
            if wants_logprobs:
                logprobs = self._writers[choice].write_prompt(echo)
            text = echo.text + text
        self._is_open[choice] = True
        if scored:
            logprobs = joined(logprobs, self._writers[choice].write(scored))
        if text or logprobs or chunk.finish_reason is not None:
            reason = finish_reason(chunk.finish_reason, has_calls=False)
            usage = self._meter.so_far()
            yield self._header.reply(
                [
                    {
                        "index": choice,
                        "text": text,
                        "logprobs": logprobs,
                        "finish_reason": "length" if self._shape.hides_answer else reason,
                    }
                ],
                **({} if usage is None else {"usage": usage}),
            )

    def end(self) -> Iterator[dict[str, Any]]:
        """The usage, in a chunk without choices."""
        if self._wants_usage:
            yield self._header.reply([], usage=self._meter.total())


class LogprobsWriter:
    """Log probabilities in the older shape, whose offsets run on from chunk to chunk."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def write(self, logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
        """Parallel lists; `text_offset` counts characters from the start of the choice's text."""
        written = joined(None, {})
        for item in logprobs:
            raw = self._token_bytes(item.token_id)
            self._add(written, raw, item, self._num_chars)
            self._num_chars += len(self._decoder.decode(raw))
        return written

    def write_prompt(self, echo: Echo) -> dict[str, Any]:
        """The same for a prompt: nothing is known of its first token's probability.

        Offsets are found in the text itself: a control token may have no place in it, and
        SentencePiece's first token has a space that the text has not.
        """
        written = joined(None, {})
        text = echo.text
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token_id, item in echo.scored_tokens:
            raw = self._token_bytes(token_id)
            self._add(written, raw, item, self._num_chars)
            piece = decoder.decode(raw)
            for found in (piece, piece.removeprefix(" ")):
                if text.startswith(found, self._num_chars):
                    self._num_chars += len(found)
                    break
        self._num_chars = len(text)
        return written

    def _add(
        self, written: dict[str, Any], raw: bytes, item: TokenLogprob | None, offset: int
    ) -> None:
        written["tokens"].append(token_name(raw))
        written["token_logprobs"].append(None if item is None else wire_logprob(item.logprob))
        written["top_logprobs"].append(
            None
            if item is None
            else {
                token_name(self._token_bytes(token_id)): wire_logprob(logprob)
                for token_id, logprob in item.top
            }
        )
        written["text_offset"].append(offset)


def joined(first: dict[str, Any] | None, second: dict[str, Any]) -> dict[str, Any]:
    """Parallel lists, one after the other."""
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return {name: [*(first or {}).get(name, ()), *second.get(name, ())] for name in names}
