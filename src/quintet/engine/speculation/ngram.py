"""Prompt lookup: what followed the latest tokens before may follow them again.

Source: Saxena 2023, "Prompt Lookup Decoding"; the search is LZ77's, with hash chains
as in RFC 1951, section 4.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Collection

from quintet.config import NgramSpeculation
from quintet.engine.sequence import Sequence

_MAX_CANDIDATES = 16  # earlier places looked at per guess; bounds the work on repetitive text


class NgramDrafter:
    """
    A Drafter without a model.

    Args:
        config: how long a match must, and may at most, be.
    """

    is_free = True

    def __init__(self, config: NgramSpeculation) -> None:
        self.max_draft_tokens = config.max_draft_tokens
        self._config = config
        self._indexes: dict[Sequence, NgramIndex] = {}

    def propose(self, wanted: Collection[tuple[Sequence, int]]) -> list[list[int]]:
        """Guesses for each sequence; see Drafter."""
        return [self._index(sequence).propose(sequence.token_ids, k) for sequence, k in wanted]

    def forget(self, sequence: Sequence) -> None:
        """Drop a sequence's index; see Drafter."""
        self._indexes.pop(sequence, None)

    def close(self) -> None:
        """Drop every index."""
        self._indexes.clear()

    def _index(self, sequence: Sequence) -> NgramIndex:
        index = self._indexes.get(sequence)
        if index is None:
            index = NgramIndex(self._config.min_ngram, self._config.max_ngram)
            self._indexes[sequence] = index
        return index


class NgramIndex:
    """
    Where each n-gram of one growing sequence stands.

    Args:
        min_ngram, max_ngram: see NgramSpeculation.
    """

    def __init__(self, min_ngram: int, max_ngram: int) -> None:
        self._min = min_ngram
        self._max = max_ngram
        # By the min_ngram tokens before a place: the latest such place.  _earlier chains
        # each place to the one before it with the same tokens, -1 at the end.
        self._latest: dict[tuple[int, ...], int] = {}
        self._earlier = array("i")

    def propose(self, token_ids: list[int], k: int) -> list[int]:
        """Up to `k` tokens that may follow; none where the latest ones were never seen."""
        self._add(token_ids)
        place = self._longest_match(token_ids)
        if place < 0:
            return []
        # Past the end the guess goes on with itself: so a loop is guessed all along.
        guess = token_ids[place : place + k]
        while len(guess) < k:
            guess.append(guess[len(guess) - (len(token_ids) - place)])
        return guess

    def _add(self, token_ids: list[int]) -> None:
        """Index the places that have a token; the end of the sequence is not one yet."""
        for place in range(len(self._earlier), len(token_ids)):
            if place < self._min:
                self._earlier.append(-1)
                continue
            key = tuple(token_ids[place - self._min : place])
            self._earlier.append(self._latest.get(key, -1))
            self._latest[key] = place

    def _longest_match(self, token_ids: list[int]) -> int:
        end = len(token_ids)
        if end < self._min:
            return -1
        best, best_length = -1, 0
        place = self._latest.get(tuple(token_ids[end - self._min :]), -1)
        for _ in range(_MAX_CANDIDATES):
            if place < 0 or best_length == self._max:
                break
            length = self._min
            limit = min(self._max, place)
            while length < limit and token_ids[place - length - 1] == token_ids[end - length - 1]:
                length += 1
            if length > best_length:
                best, best_length = place, length
            place = self._earlier[place]
        return best
