"""How a model writes tool calls, in a few words that both the parser and the grammar read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """
    A tool-call format.

    A call is a JSON object of a name and arguments.  Where it may stand:

    Args:
        openers: marks before a call.  An empty one stands for none: then a call is what an
            answer *begins* with.  Grammars write the first.
        closer: the mark after it; empty for none.
        arguments_key: the arguments' name when written; when read, all names are known.
        is_list: the opener is followed by a list of calls rather than one.
        separator: what stands between two calls when written.
    """

    openers: tuple[str, ...]
    closer: str = ""
    arguments_key: str = "arguments"
    is_list: bool = False
    separator: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """Everything that must be visible in the text for the parser to see it."""
        return tuple(mark for mark in (*self.openers, self.closer) if mark)
