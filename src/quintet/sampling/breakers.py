"""DRY's sequence breakers: from strings to the tokens that spell them in one vocabulary.

A string may hide inside a token, or begin at the end of one and go on in the next.  Source:
llama.cpp, src/llama-sampling.cpp, `get_overlapping_token_sequences`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

MAX_BREAKER_TOKENS = 21  # one that begins a breaker, and 20 more
_MAX_CACHED = 64  # strings; clients choose them


class DryBreakers:
    """Resolves breakers, and remembers those it has seen.  Safe to share between threads.

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
        self._sequences = lru_cache(maxsize=_MAX_CACHED)(self._find)

    def resolve(self, breakers: Iterable[str]) -> list[tuple[int, ...]]:
        """Each token sequence that holds one of these strings, once."""
        return sorted({sequence for text in breakers for sequence in self._sequences(text)})

    def _find(self, text: str) -> frozenset[tuple[int, ...]]:
        breaker = text.encode()
        tails = {len(rest): self._tail(rest) for rest in _proper_suffixes(breaker)}
        found: set[tuple[int, ...]] = set()
        for token_id in range(self._vocab_size):
            token = self._token_bytes(token_id)
            if breaker in token:
                found.add((token_id,))
                continue
            for num_left, tail in tails.items():
                if tail and token.endswith(breaker[:-num_left]):
                    found.add((token_id, *tail))
        return frozenset(found)

    def _tail(self, rest: bytes) -> tuple[int, ...]:
        """Tokens of the rest of a breaker; none where it begins in the middle of a character."""
        try:
            return tuple(self._encode(rest.decode())[: MAX_BREAKER_TOKENS - 1])
        except UnicodeDecodeError:
            return ()


def _proper_suffixes(data: bytes) -> list[bytes]:
    return [data[start:] for start in range(1, len(data))]
