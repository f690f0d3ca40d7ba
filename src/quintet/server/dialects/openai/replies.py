"""Parts of a reply that chat completions and completions share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from quintet.engine.output import Usage

TokenBytes: TypeAlias = Callable[[int], bytes]


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


def usage_body(usages: Iterable[Usage | None], num_per_prompt: int) -> dict[str, Any]:
    """Usage of all choices; a prompt counts once however many answers it got."""
    prompt = cached = generated = reasoning = 0
    for index, usage in enumerate(usages):
        if usage is None:
            continue
        generated += usage.num_generated_tokens
        reasoning += usage.num_reasoning_tokens
        if index % num_per_prompt == 0:
            prompt += usage.num_prompt_tokens
            cached += usage.num_cached_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def wire_logprob(logprob: float) -> float:
    """JSON has no minus infinity; OpenAI writes -9999 for a token that cannot come."""
    return max(logprob, -9999.0)


def token_name(raw: bytes) -> str:
    """A token as OpenAI writes it: its text, or its bytes where they are no whole characters."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
