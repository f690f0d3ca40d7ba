"""quintet.sampling.breakers: strings to the tokens that spell them."""

from __future__ import annotations

from quintet.sampling import DryBreakers

VOCAB = [b"\n", b"a\n\nb", b"-", b"x--", b"--|", b"|", b"a", b"\xc3", b"\xa9", b"e\xc3\xa9!", b""]


def encode(text: str) -> list[int]:
    """One token per character, where there is one."""
    return [VOCAB.index(character.encode()) for character in text]


def breakers() -> DryBreakers:
    return DryBreakers(len(VOCAB), VOCAB.__getitem__, encode)


def test_breakers_inside_tokens() -> None:
    """A token that holds the string anywhere is a breaker by itself."""
    assert breakers().resolve(["\n"]) == [(0,), (1,)]
    assert breakers().resolve(["é"]) == [(9,)]
    assert breakers().resolve([]) == []


def test_breakers_over_several_tokens() -> None:
    """A string that begins at a token's end is that token and those of the rest."""
    assert breakers().resolve(["--|"]) == [(2, 2, 5), (3, 2, 5), (3, 5), (4,)]


def test_breakers_once_each() -> None:
    """Strings that need the same tokens do not repeat them."""
    assert breakers().resolve(["\n", "\n\n", "\n"]) == [(0,), (0, 0), (1,)]


def test_breakers_are_remembered() -> None:
    """The vocabulary is read once per string."""
    num_reads = 0

    def token_bytes(token_id: int) -> bytes:
        nonlocal num_reads
        num_reads += 1
        return VOCAB[token_id]

    found = DryBreakers(len(VOCAB), token_bytes, encode)
    assert found.resolve(["a", "|"]) == found.resolve(["|", "a"])
    assert num_reads == 2 * len(VOCAB)
