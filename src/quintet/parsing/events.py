"""What an answer turns out to be, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of the text meant for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the thought before it."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """
    More of a tool call.  The first of a call carries `id` and `name`.

    Args:
        index: 0 for the answer's first call, then 1, 2...
        arguments: the next piece of the arguments, a JSON object as text.
        id: made up here; 9 letters and digits, which is what Mistral's template insists on.
    """

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


Event: TypeAlias = ContentDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class ToolCall:
    """
    A function the model wants called.

    Args:
        id: to be repeated with the function's result.
        name: one of the tools offered.
        arguments: as the model wrote them: a JSON object as text; unfinished where the answer was
            cut short.
    """

    id: str
    name: str
    arguments: str
