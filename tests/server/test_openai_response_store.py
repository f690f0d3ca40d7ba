"""Kept responses: bounded in number, size and time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quintet.server.dialects.openai.responses.store import ResponseStore


def response(response_id: str, size: int = 1) -> dict[str, Any]:
    return {"id": response_id, "output": [{"text": "x" * size}]}


def test_the_least_recently_used_goes_first():
    """Use counts, not age."""
    store = ResponseStore(max_responses=2)
    for name in ("a", "b"):
        store.put(response(name), [], [])
    assert store.get("a") is not None
    store.put(response("c"), [], [])
    assert store.get("b") is None
    assert store.get("a") is not None


def test_a_response_is_forgotten_in_time():
    """An hour after its last use."""
    now = 0.0
    store = ResponseStore(ttl_s=10, clock=lambda: now)
    store.put(response("a"), [], [])
    now = 9.0
    assert store.get("a") is not None
    now = 18.0
    assert store.get("a") is not None
    now = 28.0
    assert store.get("a") is None


def test_one_that_is_too_large_is_not_kept():
    """Nor does it push the others out."""
    store = ResponseStore(max_bytes=1000)
    store.put(response("a"), [], [])
    store.put(response("b", 2000), [], [])
    assert store.get("a") is not None
    assert store.get("b") is None
    store.put(response("a", 2000), [], [])
    assert store.get("a") is None


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 600), st.booleans()), max_size=40)
)
def test_the_bounds_hold_whatever_is_kept(steps: list[tuple[str, int, bool]]):
    """A store's size is the sum of what can be found in it, and within its bounds."""
    store = ResponseStore(max_responses=3, max_bytes=1000)
    for name, size, is_deleted in steps:
        if is_deleted:
            store.delete(name)
        else:
            store.put(response(name, size), [], [])
        found = [stored for name in "abcde" if (stored := store.get(name)) is not None]
        assert len(found) <= 3
        assert sum(stored.num_bytes for stored in found) <= 1000
    for name in "abcde":
        store.delete(name)
    store.put(response("z", 900), [], [])
    assert store.get("z") is not None
