"""Tool calls in an answer, told from its text as it comes.

Reading is more lenient than writing: white space, one call or a list, either name for the
arguments.  What only looks like a call is text; only white space around calls is dropped.  Every
character is looked at once.
"""

from __future__ import annotations

import enum
import secrets
import string
from collections.abc import Collection

from quintet.parsing.call_reader import CallReader
from quintet.parsing.events import ContentDelta, Event, ToolCallDelta
from quintet.parsing.syntax import CallSyntax

_SPACE = " \t\n\r"
_ID_LETTERS = string.ascii_letters + string.digits


class _State(enum.Enum):
    START = enum.auto()  # of the answer, where a call may stand without a mark
    TEXT = enum.auto()
    OPENED = enum.auto()  # after a mark, before the bracket
    CALL = enum.auto()
    CLOSED = enum.auto()  # after a call, before whatever ends or follows it


class ToolCallParser:
    """
    Splits an answer into content and tool calls.

    Args:
        syntax: of the model.
        names: the functions offered; a call of any other is text.
        max_calls: what looks like a further call is text; None for no bound.
    """

    def __init__(
        self, syntax: CallSyntax, names: Collection[str], *, max_calls: int | None = None
    ) -> None:
        self._names = frozenset(names)
        self._openers = tuple(mark.strip() for mark in syntax.openers if mark)
        self._closer = syntax.closer.strip()
        self._is_bare = "" in syntax.openers
        self._max_calls = max_calls
        self._state = _State.START if self._is_bare else _State.TEXT
        self._is_marked = False  # a mark stands before the current call
        self._is_in_list = False
        self._is_announced = False  # the current call's first event is out
        self._is_after_call = False  # nothing but white space has come since
        self._space: list[str] = []  # white space that a mark may follow
        self._mark = ""  # what may be the beginning of a mark
        self._raw: list[str] = []  # what may turn out to be no call
        self._reader = CallReader(self._names, needs_arguments=True)
        self._num_calls = 0
        self._events: list[Event] = []
        self._content: list[str] = []  # after those events

    @property
    def num_calls(self) -> int:
        """Calls so far, an unfinished one included."""
        return self._num_calls

    def push(self, text: str) -> list[Event]:
        """What this piece of the answer makes certain."""
        for character in text:
            self._take(character)
        self._flush_arguments()
        return self._fetch()

    def finish(self) -> list[Event]:
        """What was held back, at the end of the answer."""
        self._flush_arguments()
        if self._state is _State.CALL and self._is_announced:
            self._raw.clear()  # members after the arguments of a call cut short
        if self._state is not _State.CLOSED:  # else it is the beginning of the closing mark
            self._give_up()
        return self._fetch()

    def _take(self, character: str) -> None:
        if self._state is _State.CALL:
            self._take_in_call(character)
        elif self._state is _State.TEXT:
            self._take_text(character)
        elif self._state is _State.CLOSED:
            self._take_after_call(character)
        else:
            self._take_before_call(character)

    def _take_text(self, character: str) -> None:
        mark = self._mark + character
        if self._may_call and any(opener.startswith(mark) for opener in self._openers):
            self._mark = mark
            if mark in self._openers:
                self._is_marked = True
                self._open(mark)
        elif self._mark:
            self._give_up()
            self._take_text(character)  # it may begin a mark itself
        elif character in _SPACE:
            self._space.append(character)
        else:
            self._add_text("".join(self._space) + character)
            self._space.clear()

    def _take_before_call(self, character: str) -> None:
        """At the start of a bare answer, or after an opening mark, bracket or comma."""
        if character in _SPACE:
            self._space.append(character)
        elif character == "[" and not self._is_in_list:
            self._is_in_list = True
            self._open(character)
        elif character == "{":
            self._begin_call()
        else:
            self._reject(character)

    def _take_in_call(self, character: str) -> None:
        was_in_arguments = self._reader.is_in_arguments
        if not self._reader.take(character):
            self._flush_arguments()
            self._reject(character)
            return
        if not (self._is_announced and was_in_arguments):
            self._raw.append(character)
        if self._reader.is_call and not self._is_announced:
            self._announce()
        if self._reader.is_done:
            self._flush_arguments()
            self._raw.clear()
            self._is_after_call = True
            self._state = _State.CLOSED

    def _take_after_call(self, character: str) -> None:
        mark = self._mark + character
        is_separator = character == "," or (character == ";" and not self._is_in_list)
        may_continue = self._may_call and (self._is_in_list or not self._is_marked)
        if character in _SPACE and not self._mark:
            self._space.append(character)
        elif self._is_in_list and character == "]":
            self._is_in_list = False
            self._is_marked = True  # no further call without a mark of its own
        elif self._closer.startswith(mark):
            self._mark = mark
            if mark == self._closer:
                self._mark = ""
                self._leave_call()
        elif may_continue and is_separator:
            self._open(character)
        elif may_continue and character == "{" and not self._is_in_list:
            self._begin_call()
        else:
            self._reject(character)

    def _open(self, mark: str) -> None:
        self._raw += [*self._space, mark]
        self._space.clear()
        self._mark = ""
        self._state = _State.OPENED

    def _begin_call(self) -> None:
        self._raw += [*self._space, "{"]
        self._space.clear()
        self._reader = CallReader(self._names, needs_arguments=not self._is_marked)
        self._reader.take("{")
        self._is_announced = False
        self._state = _State.CALL

    def _announce(self) -> None:
        call_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(9))
        self._add_event(ToolCallDelta(self._num_calls, id=call_id, name=self._reader.name))
        self._num_calls += 1
        self._is_announced = True
        self._raw.clear()

    def _reject(self, character: str) -> None:
        """No call, or none any more: what was held is text; the character is looked at again."""
        self._give_up()
        self._leave_call()
        self._take_text(character)

    def _give_up(self) -> None:
        self._add_text("".join([*self._raw, *self._space, self._mark]))
        self._raw.clear()
        self._space.clear()
        self._mark = ""

    def _leave_call(self) -> None:
        self._is_marked = self._is_in_list = False
        self._space.clear()
        self._state = _State.TEXT

    @property
    def _may_call(self) -> bool:
        return self._max_calls is None or self._num_calls < self._max_calls

    def _flush_arguments(self) -> None:
        if self._is_announced and (arguments := self._reader.fetch_arguments()):
            self._add_event(ToolCallDelta(self._num_calls - 1, arguments))

    def _add_text(self, text: str) -> None:
        if self._is_after_call:
            text = text.lstrip(_SPACE)
            self._is_after_call = not text
        if text:
            self._content.append(text)

    def _add_event(self, event: ToolCallDelta) -> None:
        self._flush_content()
        self._events.append(event)

    def _flush_content(self) -> None:
        if self._content:
            self._events.append(ContentDelta("".join(self._content)))
            self._content.clear()

    def _fetch(self) -> list[Event]:
        self._flush_content()
        events, self._events = self._events, []
        return events
