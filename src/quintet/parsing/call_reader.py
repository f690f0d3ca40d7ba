"""One tool call as JSON, read as it comes: `{"name": ..., "arguments": {...}}`."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

from quintet.parsing.json_scanner import Expect, JsonScanner

ARGUMENTS_KEYS: Final = ("arguments", "parameters")


class CallReader:
    """
    Reads the object of one call.

    Attributes:
        name: of the function, once it is known to be one of those offered.

    Args:
        names: the functions there are; a call of any other is just text.
        needs_arguments: an object without arguments is no call.
    """

    def __init__(self, names: Collection[str], *, needs_arguments: bool) -> None:
        self._names = names
        self._needs_arguments = needs_arguments
        self._scanner = JsonScanner()
        self._key = ""
        self._text: list[str] = []  # of the key or string being read
        self._arguments: list[str] = []  # not yet fetched
        self._has_arguments = False
        self._is_in_arguments = False
        self.name: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether the object is complete."""
        return self._scanner.is_done

    @property
    def is_call(self) -> bool:
        """Whether it is one, not to be taken back: name and start of the arguments have come."""
        return self.name is not None and self._has_arguments

    @property
    def is_in_arguments(self) -> bool:
        """Whether the next character belongs to the arguments."""
        return self._is_in_arguments

    def fetch_arguments(self) -> str:
        """The arguments that have come since the last time."""
        arguments = "".join(self._arguments)
        self._arguments.clear()
        return arguments

    def take(self, character: str) -> bool:
        """Follow one character; whether this can still be a call."""
        scanner = self._scanner
        before, depth = scanner.expect, scanner.depth
        if not scanner.take(character):
            return False
        if depth == 0:
            return scanner.depth == 1 and character == "{"
        if self._is_in_arguments:
            self._arguments.append(character)
            self._is_in_arguments = scanner.depth > 1
            return True
        if depth > 1:
            return True  # inside a member that says nothing to us
        if scanner.is_done:
            return self._end()
        if before is Expect.VALUE:
            return self._begin_value(character)
        if scanner.expect is Expect.STRING and before in (Expect.KEY, Expect.KEY_OR_END):
            self._text = [character]
        elif before in (Expect.STRING, Expect.ESCAPE, Expect.HEX):
            self._text.append(character)
            if scanner.expect is Expect.COLON:
                self._key = _string("".join(self._text))
            elif scanner.expect is Expect.COMMA_OR_END:
                return self._end_string(_string("".join(self._text)))
        return True

    def _begin_value(self, character: str) -> bool:
        """The first character of a member's value, or white space before it."""
        expect = self._scanner.expect
        if expect is Expect.STRING:
            self._text = [character]
        elif expect is not Expect.VALUE:
            if self._key == "name":
                return self.name is not None
            if self._key in ARGUMENTS_KEYS and not self._has_arguments:
                self._has_arguments = self._is_in_arguments = character == "{"
                self._arguments.append(character)
                return self._is_in_arguments
        return True

    def _end_string(self, value: str) -> bool:
        if self._key == "name" and self.name is None:
            if value not in self._names:
                return False
            self.name = value
        elif self._key in ARGUMENTS_KEYS and not self._has_arguments:
            if not _is_object(value):
                return False
            self._has_arguments = True
            self._arguments.append(value)
        return True

    def _end(self) -> bool:
        """At the closing bracket it must have been a call."""
        if not self._has_arguments and self.name is not None and not self._needs_arguments:
            self._has_arguments = True
            self._arguments.append("{}")
        return self.is_call


def _string(text: str) -> str:
    """What a JSON string spells; the scanner has found it well-formed."""
    value = json.loads(text)
    return value if isinstance(value, str) else ""


def _is_object(text: str) -> bool:
    scanner = JsonScanner()
    return text.startswith("{") and all(map(scanner.take, text)) and scanner.is_done
