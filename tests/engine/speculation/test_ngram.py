"""Prompt lookup: what it finds, and what it guesses from there."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from quintet.config import DraftSpeculation, EngineConfig, NgramSpeculation
from quintet.engine.speculation.ngram import NgramIndex
from quintet.errors import RequestError


def test_ngram_guesses_what_followed_before() -> None:
    """The latest two tokens were seen; the tokens after them are guessed."""
    index = NgramIndex(2, 8)
    assert index.propose([1, 2, 3, 4, 5, 9, 1, 2], 3) == [3, 4, 5]


def test_ngram_guesses_nothing_for_what_is_new() -> None:
    """Without an earlier occurrence there is no guess, nor in a sequence shorter than n."""
    assert NgramIndex(2, 8).propose([1, 2, 3, 4], 3) == []
    assert NgramIndex(3, 8).propose([1, 1], 3) == []
    assert NgramIndex(1, 8).propose([1], 3) == []


def test_ngram_prefers_the_longest_match_then_the_latest() -> None:
    """More context beats recency; recency decides among equals."""
    index = NgramIndex(1, 4)
    assert index.propose([7, 5, 1, 9, 5, 2, 9, 6, 5, 3, 7, 5], 1) == [1]
    assert NgramIndex(1, 4).propose([8, 5, 1, 9, 5, 2, 6, 5], 1) == [2]


def test_ngram_goes_on_with_itself_past_the_end() -> None:
    """A loop is guessed all along, however short it is."""
    assert NgramIndex(2, 8).propose([4, 1, 2, 1, 2, 1, 2], 7) == [1, 2, 1, 2, 1, 2, 1]
    assert NgramIndex(2, 8).propose([3, 3, 3], 4) == [3, 3, 3, 3]


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 3), st.integers(1, 6))
def test_ngram_index_grown_token_by_token_guesses_as_one_made_at_once(
    token_ids: list[int], min_ngram: int, k: int
) -> None:
    """Guesses depend on the tokens, not on how often was asked; each continues a true match."""
    grown = NgramIndex(min_ngram, 5)
    for end in range(len(token_ids) + 1):
        guess = grown.propose(token_ids[:end], k)
        assert guess == NgramIndex(min_ngram, 5).propose(token_ids[:end], k)
        assert len(guess) in (0, k)
        text = token_ids[:end] + guess
        if guess:
            suffix = token_ids[end - min_ngram : end]
            assert any(
                text[place - min_ngram : place] == suffix and text[place : place + k] == guess
                for place in range(min_ngram, end)
            )
        else:
            suffix = token_ids[end - min_ngram : end] if end >= min_ngram else None
            assert all(
                token_ids[place - min_ngram : place] != suffix for place in range(min_ngram, end)
            )


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"max_draft_tokens": 0}, "max_draft_tokens"),
        ({"max_draft_tokens": 33}, "max_draft_tokens"),
        ({"min_ngram": 0}, "min_ngram"),
        ({"min_ngram": 4, "max_ngram": 3}, "max_ngram"),
    ],
)
def test_ngram_options_out_of_range_are_refused(options: dict[str, int], parameter: str) -> None:
    """The error names the option."""
    with pytest.raises(RequestError) as caught:
        NgramSpeculation(**options)
    assert caught.value.parameter == parameter


def test_speculation_is_done_in_one_way_only() -> None:
    """Two ways of guessing at once are refused."""
    with pytest.raises(RequestError, match="draft_speculation"):
        EngineConfig(
            ngram_speculation=NgramSpeculation(), draft_speculation=DraftSpeculation(model="demo")
        )
