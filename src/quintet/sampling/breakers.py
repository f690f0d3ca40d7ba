"""DRY's sequence breakers: from strings to the tokens that spell them in one vocabulary.

A string may hide inside a token, or begin at the end of one and go on in the next.  Source:
llama.cpp, src/llama-sampling.cpp, `get_overlapping_token_sequences`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate

from quintet._native import (
    TokenSequences as TokenSequences,  # for the engine, which has no native part
)
from quintet.errors import RequestError

MAX_BREAKER_TOKENS = 21  # one that begins a breaker, and 20 more
MAX_SEQUENCES = 2**16  # of one request
_MAX_CACHED = 16  # sets of strings; clients choose them


class DryBreakers:
    """Resolves breakers, and remembers those it has seen.  Safe to share between threads.

    The vocabulary is read when the first request asks.

    Args:
        vocab_size: number of token ids.
        token_bytes: the text of a token, in UTF-8 and not necessarily whole characters.
        encode: tokens of a text, without special ones.
    """

    def __init__(
        self,
        vocab_size: int,
        token_bytes: Callable[[int], bytes],
        encode: Callable[[str], Sequence[int]],
    ) -> None:
        self._vocab_size = vocab_size
        self._token_bytes = token_bytes
        self._encode = encode
        self._resolve = lru_cache(maxsize=_MAX_CACHED)(self._resolve_all)

    def resolve(self, breakers: Iterable[str]) -> TokenSequences:
        """The token sequences that hold one of these strings.

        Raises:
            RequestError: there are more than MAX_SEQUENCES.
        """
        return self._resolve(tuple(breakers))

    def sequences(self, breakers: Iterable[str]) -> list[tuple[int, ...]]:
        """What `resolve` looks for, each once, in order."""
        found: set[tuple[int, ...]] = set()
        for text in breakers:
            for sequence in self._find(text):
                found.add(sequence)
                if len(found) > MAX_SEQUENCES:
                    raise RequestError(
                        f"expected strings that at most {MAX_SEQUENCES} token sequences spell, "
                        "found more",
                        parameter="dry_sequence_breakers",
                    )
        return sorted(found)

    def _resolve_all(self, breakers: tuple[str, ...]) -> TokenSequences:
        return TokenSequences(self.sequences(breakers))

    def _find(self, text: str) -> Iterator[tuple[int, ...]]:
        breaker = text.encode()
        for token_id in self._vocabulary.holding(breaker):
            yield (token_id,)
        for start in range(1, len(breaker)):
            tail = self._tail(breaker[start:])
            if tail:
                for token_id in self._vocabulary.ending_with(breaker[:start]):
                    yield (token_id, *tail)

    def _tail(self, rest: bytes) -> tuple[int, ...]:
        """Tokens of the rest of a breaker; none where it begins in the middle of a character."""
        try:
            return tuple(self._encode(rest.decode())[: MAX_BREAKER_TOKENS - 1])
        except UnicodeDecodeError:
            return ()

    @cached_property
    def _vocabulary(self) -> _Vocabulary:
        return _Vocabulary([self._token_bytes(token_id) for token_id in range(self._vocab_size)])


class _Vocabulary:
    """Finds tokens by what they hold and by how they end, without looking at each."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._tokens = tokens
        self._text = b"".join(tokens)
        self._ends = list(accumulate(map(len, tokens)))

    def holding(self, part: bytes) -> Iterator[int]:
        """Tokens that `part` is in."""
        place = self._text.find(part)
        while place >= 0:
            token_id = bisect_right(self._ends, place)
            end = self._ends[token_id]
            if place + len(part) <= end:
                yield token_id
                place = self._text.find(part, end)
            else:  # it reaches over the end of the token
                place = self._text.find(part, place + 1)

    def ending_with(self, part: bytes) -> Iterator[int]:
        """Tokens that end with `part`."""
        backward = part[::-1]
        endings = self._endings
        for place in range(bisect_left(endings, (backward, 0)), len(endings)):
            ending, token_id = endings[place]
            if not ending.startswith(backward):
                return
            yield token_id

    @cached_property
    def _endings(self) -> list[tuple[bytes, int]]:
        """Tokens written backward, sorted: equal endings lie together."""
        return sorted((token[::-1], token_id) for token_id, token in enumerate(self._tokens))
