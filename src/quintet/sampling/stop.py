"""Stop strings over text that arrives in pieces.

Source: Aho and Corasick 1975, "Efficient string matching", Communications of the ACM 18(6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopChecker:
    """Finds the first stop string in a growing text, and holds back only what may begin one.

    The stop string completed first wins; of those completed by the same character, the longest.  So
    the outcome depends on the text, not on how it was cut into pieces.  Each character costs a
    constant amount of work on average, whatever the stop strings.

    Args:
        stop: strings of at least one character; none means that all text passes.
        include_stop: a matched string stays at the end of the text.
    """

    __slots__ = ("_automaton", "_held", "_include_stop", "_matched", "_state")

    def __init__(self, stop: Sequence[str], *, include_stop: bool = False) -> None:
        self._automaton = _Automaton(stop) if stop else None
        self._include_stop = include_stop
        self._state = 0
        self._held = ""
        self._matched: str | None = None

    def push(self, new_text: str) -> tuple[str, str | None]:
        """Take the next piece; return the text that is now certain, and the stop string found.

        What follows a stop string is dropped.
        """
        if (automaton := self._automaton) is None:
            return new_text, None
        if self._matched is not None:
            return "", self._matched
        text = self._held + new_text
        state = self._state
        for end, character in enumerate(new_text, start=len(self._held) + 1):
            state = automaton.step(state, character)
            self._matched = automaton.matches[state]
            if self._matched is not None:
                self._held = ""
                return text[
                    : end if self._include_stop else end - len(self._matched)
                ], self._matched
        self._state = state
        certain = len(text) - automaton.depths[state]
        self._held = text[certain:]
        return text[:certain], None

    def skip(self, new_text: str) -> str:
        """Let a piece pass unseen, as min_tokens asks; return it after anything held back."""
        return self.flush() + new_text

    def flush(self) -> str:
        """The text held back; for when no more will come."""
        held, self._held, self._state = self._held, "", 0
        return held


class _Automaton:
    """Its states are the prefixes of the stop strings; the current one is the longest that fits."""

    __slots__ = ("_edges", "_fallbacks", "depths", "matches")

    def __init__(self, stop: Sequence[str]) -> None:
        self._edges: list[dict[str, int]] = [{}]
        self._fallbacks = [0]  # the state's longest proper suffix that is a state too
        self.depths = [0]  # characters in the prefix
        self.matches: list[str | None] = [None]  # the longest stop string that ends in the state
        for string in stop:
            self._add(string)
        self._link()

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        edges = self._edges
        while True:
            following = edges[state].get(character)
            if following is not None:
                return following
            if state == 0:
                return 0
            state = self._fallbacks[state]

    def _add(self, string: str) -> None:
        state = 0
        for character in string:
            following = self._edges[state].get(character)
            if following is None:
                following = len(self.depths)
                self._edges[state][character] = following
                self._edges.append({})
                self._fallbacks.append(0)
                self.depths.append(self.depths[state] + 1)
                self.matches.append(None)
            state = following
        self.matches[state] = string

    def _link(self) -> None:
        """Breadth first, so that a fallback is complete before it is followed."""
        queue = deque(self._edges[0].values())
        while queue:
            state = queue.popleft()
            fallback = self._fallbacks[state]
            if self.matches[state] is None:
                self.matches[state] = self.matches[fallback]
            for character, following in self._edges[state].items():
                self._fallbacks[following] = self.step(fallback, character)
                queue.append(following)
