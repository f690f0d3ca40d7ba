"""quintet.sampling.breakers: strings to the tokens that spell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.errors import RequestError
from quintet.sampling import DryBreakers

VOCAB = [b"\n", b"a\n\nb", b"-", b"x--", b"--|", b"|", b"a", b"\xc3", b"\xa9", b"e\xc3\xa9!", b""]


def encode(text: str) -> list[int]:
    """One token per character, where there is one."""
    return [VOCAB.index(character.encode()) for character in text]


def breakers() -> DryBreakers:
    return DryBreakers(len(VOCAB), VOCAB.__getitem__, encode)


def test_breakers_inside_tokens() -> None:
    """A token that holds the string anywhere is a breaker by itself."""
    assert breakers().sequences(["\n"]) == [(0,), (1,)]
    assert breakers().sequences(["é"]) == [(9,)]
    assert breakers().sequences([]) == []


def test_breakers_over_several_tokens() -> None:
    """A string that begins at a token's end is that token and those of the rest."""
    assert breakers().sequences(["--|"]) == [(2, 2, 5), (3, 2, 5), (3, 5), (4,)]


def test_breakers_once_each() -> None:
    """Strings that need the same tokens do not repeat them."""
    assert breakers().sequences(["\n", "\n\n", "\n"]) == [(0,), (0, 0), (1,)]


def test_breakers_are_remembered() -> None:
    """The vocabulary is read once, and a set of strings resolved once."""
    num_reads = 0

    def token_bytes(token_id: int) -> bytes:
        nonlocal num_reads
        num_reads += 1
        return VOCAB[token_id]

    found = DryBreakers(len(VOCAB), token_bytes, encode)
    assert found.resolve(["a", "|"]) is found.resolve(["a", "|"])
    assert num_reads == len(VOCAB)


@given(
    vocabulary=st.lists(st.binary(max_size=4).map(lambda b: bytes(x % 3 + 97 for x in b))),
    breaker=st.text("abc", min_size=1, max_size=4),
)
def test_breakers_agree_with_looking_at_each_token(vocabulary: list[bytes], breaker: str) -> None:
    """The index finds the tokens that a search of each one finds."""
    single = [*vocabulary, b"a", b"b", b"c"]
    found = DryBreakers(
        len(single), single.__getitem__, lambda text: [len(single) - 99 + ord(c) - 1 for c in text]
    ).sequences([breaker])
    text = breaker.encode()
    wanted = {(i,) for i, token in enumerate(single) if text in token}
    for start in range(1, len(text)):
        tail = tuple(len(single) - 99 + c - 1 for c in text[start:])
        wanted |= {(i, *tail) for i, token in enumerate(single) if token.endswith(text[:start])}
    assert found == sorted(wanted)


def test_breakers_spelled_in_too_many_ways() -> None:
    """A breaker that would make every step slow is refused by name."""
    vocabulary = [b"x%d-" % i for i in range(70_000)]
    many = DryBreakers(len(vocabulary), vocabulary.__getitem__, lambda _: [0])
    assert len(many.sequences(["x1"])) < 2**16
    with pytest.raises(RequestError, match="at most 65536 token sequences") as caught:
        many.resolve(["-|"])
    assert caught.value.parameter == "dry_sequence_breakers"
