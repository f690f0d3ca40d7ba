"""An answer's thought, content and tool calls, told apart as its text comes."""

from __future__ import annotations

import enum

from quintet.parsing.events import ContentDelta, Event, ReasoningDelta
from quintet.parsing.thinking import THINK_END, THINK_START, Thinking
from quintet.parsing.tool_parser import ToolCallParser


class _State(enum.Enum):
    START = enum.auto()  # a thought may begin
    THOUGHT = enum.auto()
    ANSWER = enum.auto()


class AnswerParser:
    """
    Takes an answer piece by piece.  The events do not depend on where it was cut.

    The marks of a thought are dropped, with the white space around them; so is white space around
    tool calls.  All other text comes out as content or as a thought.

    Args:
        thinking: how the answer may begin.
        tools: finds tool calls after the thought; None leaves them in the text.
    """

    def __init__(self, thinking: Thinking, tools: ToolCallParser | None = None) -> None:
        self._tools = tools
        self._state = {
            Thinking.NONE: _State.ANSWER,
            Thinking.POSSIBLE: _State.START,
            Thinking.OPEN: _State.THOUGHT,
        }[thinking]
        self._has_text = False  # the thought, or the answer behind one, has begun
        self._drops_space = False
        self._space: list[str] = []
        self._mark = ""

    @property
    def is_thinking(self) -> bool:
        """Whether the text so far ends inside a thought."""
        return self._state is _State.THOUGHT

    @property
    def num_calls(self) -> int:
        """Tool calls so far."""
        return 0 if self._tools is None else self._tools.num_calls

    def push(self, text: str) -> list[Event]:
        """What this piece of the answer makes certain."""
        thought: list[str] = []
        answer: list[str] = []
        for position, character in enumerate(text):
            if self._state is _State.ANSWER:
                answer.append(text[position:])
                break
            if self._state is _State.START:
                answer += self._take_at_start(character)
            else:
                thought += self._take_thought(character)
        events: list[Event] = [ReasoningDelta("".join(thought))] if thought else []
        return events + self._answer("".join(answer))

    def finish(self) -> list[Event]:
        """What was held back, at the end of the answer."""
        events: list[Event] = []
        if self._state is _State.START:
            events += self._answer("".join(self._space) + self._mark)
        elif self._state is _State.THOUGHT and self._mark:
            events.append(ReasoningDelta("".join(self._space) + self._mark))
        if self._tools is not None:
            events += self._tools.finish()
        return _merged(events)

    def _take_at_start(self, character: str) -> list[str]:
        """White space and the opening mark wait; anything else begins the answer."""
        if character.isspace() and not self._mark:
            self._space.append(character)
        elif THINK_START.startswith(self._mark + character):
            self._mark += character
            if self._mark == THINK_START:
                self._mark = ""
                self._space.clear()
                self._state = _State.THOUGHT
        else:
            self._state = _State.ANSWER
            return [*self._space, self._mark, character]
        return []

    def _take_thought(self, character: str) -> list[str]:
        """Pieces of the thought; white space waits, for the closing mark may follow it."""
        mark = self._mark + character
        if THINK_END.startswith(mark):
            self._mark = mark
            if mark == THINK_END:
                self._mark = ""
                self._space.clear()
                self._drops_space = True
                self._state = _State.ANSWER
            return []
        pieces = []
        if self._mark:
            pieces = [*self._space, self._mark]
            self._space.clear()
            self._mark = ""
            self._has_text = True
            return pieces + self._take_thought(character)
        if character.isspace():
            if self._has_text:  # white space before the thought is dropped
                self._space.append(character)
            return []
        self._has_text = True
        pieces = [*self._space, character]
        self._space.clear()
        return pieces

    def _answer(self, text: str) -> list[Event]:
        if self._drops_space:
            text = text.lstrip()
            self._drops_space = not text
        if not text:
            return []
        return [ContentDelta(text)] if self._tools is None else self._tools.push(text)


def _merged(events: list[Event]) -> list[Event]:
    """Neighbouring pieces of content as one."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, ContentDelta) and isinstance(last, ContentDelta):
            merged[-1] = ContentDelta(last.text + event.text)
        else:
            merged.append(event)
    return merged
