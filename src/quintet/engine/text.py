"""From tokens to text, one sequence at a time: detokenise, then look for stop strings."""

from __future__ import annotations

from typing import Protocol

from quintet.sampling.stop import StopChecker


class Detokenizer(Protocol):
    """Turns tokens into text as they come; keeps incomplete characters back."""

    def push(self, token_id: int) -> str:
        """The text that this token completes."""

    def flush(self) -> str:
        """What was kept back, at the end."""


class TextStream:
    """
    The text of one sequence.

    Args:
        detokenizer: fresh, this sequence's own.
        stop: fresh, this sequence's own.
        min_tokens: stop strings that end before this many tokens are just text.
    """

    def __init__(self, detokenizer: Detokenizer, stop: StopChecker, min_tokens: int = 0) -> None:
        self._detokenizer = detokenizer
        self._stop = stop
        self._min_tokens = min_tokens
        self._num_tokens = 0

    def push(self, token_id: int) -> tuple[str, str | None]:
        """Text to emit, and the stop string that ends the sequence here, if one does."""
        self._num_tokens += 1
        text = self._detokenizer.push(token_id)
        if self._num_tokens < self._min_tokens:
            return self._stop.skip(text), None
        return self._stop.push(text)

    def finish(self) -> str:
        """What was kept back, when the sequence ends for another reason."""
        text, _ = self._stop.push(self._detokenizer.flush())
        return text + self._stop.flush()
