"""Parts of a reply that chat completions and completions share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from quintet.engine.output import OutputChunk, TokenLogprob, Usage
from quintet.server.answers import Answer
from quintet.server.requests import GenerationRequest

TokenBytes: TypeAlias = Callable[[int], bytes]


class Chunks(Protocol):
    """A streamed reply in the making."""

    def start(self) -> Iterator[dict[str, Any]]:
        """What comes before everything."""

    def add(self, choice: int, chunk: OutputChunk) -> Iterator[dict[str, Any]]:
        """What an engine chunk adds."""

    def end(self) -> Iterator[dict[str, Any]]:
        """What comes after everything."""


@dataclass(frozen=True, slots=True)
class Work:
    """
    A body understood, for one model.

    Args:
        requests: for the engine, all with the same `n`.
        reply: the whole reply, from all answers.
        chunks: makes the streamed one.
    """

    requests: Sequence[GenerationRequest]
    reply: Callable[[Sequence[Answer]], dict[str, Any]]
    chunks: Callable[[], Chunks]


@dataclass(frozen=True, slots=True)
class ReplyHeader:
    """What every chunk of one reply repeats.

    Args:
        id: e.g. "chatcmpl-..." .
        object: e.g. "chat.completion.chunk".
        model: as the client named it.
        created: seconds since 1970.
    """

    id: str
    object: str
    model: str
    created: int

    @classmethod
    def new(cls, prefix: str, object_: str, model: str) -> ReplyHeader:
        return cls(f"{prefix}-{secrets.token_hex(12)}", object_, model, int(time.time()))

    def reply(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The wire object around `choices`."""
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **more,
        }


class UsageMeter:
    """
    Tokens of a reply with several answers; a prompt counts once however many it has.

    Args:
        num_choices: answers, those of one prompt together.
        num_per_prompt: answers to each prompt.
        prompt_lengths: tokens of each prompt, where `so_far` is asked for.
        num_hidden_tokens: of each answer, tokens that the client did not ask for.
    """

    def __init__(
        self,
        num_choices: int,
        num_per_prompt: int,
        *,
        prompt_lengths: Sequence[int] | None = None,
        num_hidden_tokens: int = 0,
    ) -> None:
        self._usages: list[Usage | None] = [None] * num_choices
        self._num_per_prompt = num_per_prompt
        self._prompt_lengths = prompt_lengths
        self._num_hidden_tokens = num_hidden_tokens
        self._num_generated = 0

    def add(self, choice: int, chunk: OutputChunk) -> None:
        """Count what a chunk brings."""
        self._num_generated += len(chunk.token_ids)
        if chunk.finish_reason is not None:
            self.end(choice, chunk.usage)

    def end(self, choice: int, usage: Usage | None) -> None:
        """Take in the usage of a finished answer."""
        self._usages[choice] = usage

    def so_far(self) -> dict[str, Any] | None:
        """vLLM's `continuous_usage_stats`: None where it is not asked for."""
        if self._prompt_lengths is None:
            return None
        prompt = sum(self._prompt_lengths)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._num_generated,
            "total_tokens": prompt + self._num_generated,
        }

    def total(self) -> dict[str, Any]:
        """Of all answers, once they are finished."""
        prompt = cached = generated = reasoning = 0
        for index, usage in enumerate(self._usages):
            if usage is None:
                continue
            generated += max(0, usage.num_generated_tokens - self._num_hidden_tokens)
            reasoning += usage.num_reasoning_tokens
            if index % self._num_per_prompt == 0:
                prompt += usage.num_prompt_tokens
                cached += usage.num_cached_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }


def chat_logprobs(logprobs: Iterable[TokenLogprob], token_bytes: TokenBytes) -> list[Any]:
    """Log probabilities in the shape of chat completions, which responses share."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(token_id)
        return {"token": token_name(raw), "logprob": wire_logprob(logprob), "bytes": list(raw)}

    return [
        {
            **entry(item.token_id, item.logprob),
            "top_logprobs": [entry(token_id, logprob) for token_id, logprob in item.top],
        }
        for item in logprobs
    ]


def wire_logprob(logprob: float) -> float:
    """JSON has no minus infinity; OpenAI writes -9999 for a token that cannot come."""
    return max(logprob, -9999.0)


def token_name(raw: bytes) -> str:
    """A token as OpenAI writes it: its text, or its bytes where they are no whole characters."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
