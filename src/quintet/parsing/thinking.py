"""Whether a model thinks before it answers, and how that is marked.

Source: the chat templates of Qwen3, DeepSeek-R1 and SmolLM3, which all write `<think>`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from quintet.tokenizer import Tokenizer

THINK_START: Final = "<think>"
THINK_END: Final = "</think>"

_TAIL_TOKENS = 32  # enough for an opened or an empty thought after the assistant's header


class Thinking(enum.Enum):
    """How an answer may begin."""

    NONE = "none"  # with the answer itself
    POSSIBLE = "possible"  # with <think>, if the model likes
    OPEN = "open"  # inside a thought that the prompt has opened


def thinking_after(
    tokenizer: Tokenizer, prompt_token_ids: Sequence[int], enable_thinking: bool | None
) -> Thinking:
    """How the answer to a rendered conversation may begin.

    Args:
        prompt_token_ids: as the chat template wrote them, the opening of the answer included.
        enable_thinking: what the template was told.
    """
    tail = tokenizer.decode(prompt_token_ids[-_TAIL_TOKENS:], skip_special=False).rstrip()
    if tail.endswith(THINK_START):
        return Thinking.OPEN
    if tail.endswith(THINK_END) or enable_thinking is False:
        return Thinking.NONE
    template = tokenizer.chat_templates.get("default", "")
    return Thinking.POSSIBLE if THINK_END in template else Thinking.NONE
