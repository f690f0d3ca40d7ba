"""quintet.sampling.stop: stop strings over text in pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.sampling import StopChecker


def run(stop: list[str], pieces: list[str], **options: bool) -> tuple[str, str | None]:
    """All the text let through, and the match; checks what must hold after each piece."""
    checker = StopChecker(stop, **options)
    emitted, matched = "", None
    for piece in pieces:
        text, matched = checker.push(piece)
        emitted += text
        if matched is not None:
            assert checker.flush() == ""
            return emitted, matched
    return emitted + checker.flush(), None


def expected(stop: list[str], text: str) -> tuple[str, str | None]:
    """By definition: the first end of a stop string in the text; the longest that ends there."""
    for end in range(1, len(text) + 1):
        found = [s for s in stop if text[:end].endswith(s)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize("stop", ["STOP", "\n\n", "</s>", "aab", "né🙂e", "x"])
def test_stop_is_found_at_every_split(stop: str) -> None:
    """A stop string is found wherever tokens happen to cut it, and none of it is let through."""
    text = f"before {stop[:-1]} {stop} after"
    for cuts in itertools.combinations(range(len(text) + 1), 2):
        pieces = [text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]]
        assert run([stop], pieces) == (f"before {stop[:-1]} ", stop)
    assert run([stop], list(text)) == (f"before {stop[:-1]} ", stop)


@pytest.mark.parametrize(
    ("stop", "text", "outcome"),
    [
        (["abc", "bcd"], "xabcd", ("x", "abc")),
        (["abcd", "bc"], "xabcd", ("xa", "bc")),
        (["bc", "abc"], "xabc", ("x", "abc")),
        (["aab"], "aaaab", ("aa", "aab")),
        (["abab"], "abaabab", ("aba", "abab")),
        (["ab", "ab"], "ab", ("", "ab")),
        (["she", "he", "hers"], "ushers", ("u", "she")),
    ],
)
def test_stop_strings_overlapping(stop: list[str], text: str, outcome: tuple[str, str]) -> None:
    """The one completed first wins, of those the longest, however the text is cut."""
    assert expected(stop, text) == outcome
    for mask in range(2 ** (len(text) - 1)):
        cuts = [i + 1 for i in range(len(text) - 1) if mask >> i & 1]
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert run(stop, pieces) == outcome


def test_stop_holds_back_only_what_may_begin_one() -> None:
    """Text goes out as soon as no stop string can begin in it."""
    checker = StopChecker(["STOP"])
    assert checker.push("go S") == ("go ", None)
    assert checker.push("TO") == ("", None)
    assert checker.push("RY S") == ("STORY ", None)
    assert checker.push("o") == ("So", None)
    assert checker.push("ST") == ("", None)
    assert checker.flush() == "ST"
    assert checker.flush() == ""


def test_stop_include() -> None:
    """include_stop leaves the matched string at the end of the text, and what follows out."""
    for pieces in (["one END two"], ["one E", "N", "D two"]):
        assert run(["END"], pieces, include_stop=True) == ("one END", "END")
        assert run(["END"], pieces) == ("one ", "END")


def test_stop_after_a_match_nothing_passes() -> None:
    """Text pushed after a stop string is dropped, and the match is still reported."""
    checker = StopChecker(["."])
    assert checker.push("a.b") == ("a", ".")
    assert checker.push("c") == ("", ".")
    assert checker.flush() == ""


def test_stop_none() -> None:
    """Without stop strings all text passes at once."""
    assert run([], ["a", "", "bc"]) == ("abc", None)


def test_stop_skip() -> None:
    """What min_tokens lets pass is not looked at, nor does a stop string begin in it."""
    checker = StopChecker(["ab"])
    assert checker.skip("ab a") == "ab a"
    assert checker.push("b a") == ("b ", None)
    assert checker.skip("b") == "ab"
    assert checker.push("ab") == ("", "ab")


words = st.text("ab", min_size=1, max_size=5)


@given(stop=st.lists(words, max_size=5), pieces=st.lists(st.text("abc", max_size=6), max_size=12))
def test_stop_matches_the_definition(stop: list[str], pieces: list[str]) -> None:
    """For any stop strings and any cut, the outcome is that of the whole text."""
    assert run(stop, pieces) == expected(stop, "".join(pieces))


@given(stop=st.lists(words, max_size=5), pieces=st.lists(st.text("abc", max_size=6), max_size=12))
def test_stop_holds_back_less_than_a_stop_string(stop: list[str], pieces: list[str]) -> None:
    """What is held back is always the beginning of a stop string, and the longest there is."""
    checker = StopChecker(stop)
    seen = emitted = ""
    for piece in pieces:
        text, matched = checker.push(piece)
        if matched is not None:
            return
        seen, emitted = seen + piece, emitted + text
        prefixes = {s[:n] for s in stop for n in range(len(s))}
        assert seen[len(emitted) :] == max(
            (p for p in prefixes if seen.endswith(p)), key=len, default=""
        )


def test_stop_reads_text_that_always_looks_like_a_beginning() -> None:
    """Sixteen long stop strings, always half matched, hold back their length and no more."""
    checker = StopChecker(["a" * (255 - i) + "b" for i in range(16)])
    pieces = [checker.push("aaaa")[0] for _ in range(50_000)]
    assert 200_000 - sum(map(len, pieces)) == 255
