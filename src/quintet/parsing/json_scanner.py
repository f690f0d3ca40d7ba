"""JSON read one character at a time: whether what has come so far can still become a value.

Source: RFC 8259, sections 2 to 7.
"""

from __future__ import annotations

import enum
from typing import Final

MAX_DEPTH: Final = 64
_SPACE = frozenset(" \t\n\r")
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGITS = frozenset("0123456789")
_LITERALS: Final = {"t": "rue", "f": "alse", "n": "ull"}

# Number states: what may follow, by class of character; those in _WHOLE may be the last.
_NUMBER: Final[dict[str, dict[str, str]]] = {
    "-": {"0": "0", "1": "int"},
    "0": {".": ".", "e": "e"},
    "int": {"0": "int", "1": "int", ".": ".", "e": "e"},
    ".": {"0": "frac", "1": "frac"},
    "frac": {"0": "frac", "1": "frac", "e": "e"},
    "e": {"0": "exp", "1": "exp", "+": "sign", "-": "sign"},
    "sign": {"0": "exp", "1": "exp"},
    "exp": {"0": "exp", "1": "exp"},
}
_WHOLE: Final = frozenset({"0", "int", "frac", "exp"})


class Expect(enum.Enum):
    """What the next character belongs to."""

    VALUE = enum.auto()
    VALUE_OR_END = enum.auto()  # after [
    KEY = enum.auto()
    KEY_OR_END = enum.auto()  # after {
    COLON = enum.auto()
    COMMA_OR_END = enum.auto()
    STRING = enum.auto()
    ESCAPE = enum.auto()
    HEX = enum.auto()
    NUMBER = enum.auto()
    LITERAL = enum.auto()
    NOTHING = enum.auto()


class JsonScanner:
    """
    Follows one JSON value; constant work per character, nesting up to 64.

    Attributes:
        depth: brackets open now.
        is_done: the value is complete.
        expect: what the next character belongs to.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.is_done = False
        self.expect = Expect.VALUE
        self._is_in_key = False
        self._closers: list[str] = []
        self._number = ""
        self._rest = ""  # of a literal
        self._num_hex = 0

    def take(self, character: str) -> bool:
        """Follow one character; whether it fits.  A number at the top level never is complete."""
        if self.expect is Expect.STRING:
            return self._in_string(character)
        if self.expect is Expect.NUMBER:
            kind = "1" if character in "123456789" else "e" if character == "E" else character
            following = _NUMBER[self._number].get(kind)
            if following is not None:
                self._number = following
                return True
            if self._number not in _WHOLE:
                return False
            self._end_value()
        elif self.expect in (Expect.ESCAPE, Expect.HEX, Expect.LITERAL):
            return self._inside(character)
        if character in _SPACE:
            return self.expect is not Expect.NOTHING
        return self._structure(character)

    def _in_string(self, character: str) -> bool:
        if character == '"':
            if self._is_in_key:
                self._is_in_key = False
                self.expect = Expect.COLON
            else:
                self._end_value()
        elif character == "\\":
            self.expect = Expect.ESCAPE
        else:
            return character >= " "
        return True

    def _inside(self, character: str) -> bool:
        """In an escape or a literal."""
        if self.expect is Expect.LITERAL:
            if character != self._rest[0]:
                return False
            self._rest = self._rest[1:]
            if not self._rest:
                self._end_value()
            return True
        if self.expect is Expect.HEX:
            self._num_hex -= 1
            if self._num_hex == 0:
                self.expect = Expect.STRING
            return character in _HEX
        if character == "u":
            self.expect, self._num_hex = Expect.HEX, 4
            return True
        self.expect = Expect.STRING
        return character in '"\\/bfnrt'

    def _structure(self, character: str) -> bool:
        expect = self.expect
        if expect in (Expect.VALUE, Expect.VALUE_OR_END) and self._begin_value(character):
            return True
        if expect in (Expect.KEY, Expect.KEY_OR_END) and character == '"':
            self._is_in_key = True
            self.expect = Expect.STRING
            return True
        if expect is Expect.COLON and character == ":":
            self.expect = Expect.VALUE
            return True
        if expect is Expect.COMMA_OR_END and character == ",":
            self.expect = Expect.KEY if self._closers[-1] == "}" else Expect.VALUE
            return True
        may_end = expect in (Expect.VALUE_OR_END, Expect.KEY_OR_END, Expect.COMMA_OR_END)
        if may_end and character == self._closers[-1]:
            self._closers.pop()
            self.depth -= 1
            self._end_value()
            return True
        return False

    def _begin_value(self, character: str) -> bool:
        if character in "{[":
            self._closers.append("}" if character == "{" else "]")
            self.depth += 1
            self.expect = Expect.KEY_OR_END if character == "{" else Expect.VALUE_OR_END
            return self.depth <= MAX_DEPTH
        if character == '"':
            self.expect = Expect.STRING
        elif character == "-" or character in _DIGITS:
            self.expect = Expect.NUMBER
            self._number = character if character in "-0" else "int"
        elif character in _LITERALS:
            self.expect, self._rest = Expect.LITERAL, _LITERALS[character]
        else:
            return False
        return True

    def _end_value(self) -> None:
        self.is_done = self.depth == 0
        self.expect = Expect.NOTHING if self.is_done else Expect.COMMA_OR_END
