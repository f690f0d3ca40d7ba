"""Conversations in a file: whole turns, kept over restarts, never half written."""

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quintet.errors import RequestError
from quintet.sessions.store import SessionInfo, SessionStore

HELLO = (
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi \u2013 \U0001f600"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def test_store_keeps_turns_over_a_restart(path: Path) -> None:
    """What was appended is read back by the next program, in order."""
    store = SessionStore(path)
    store.append(store.read("a"), HELLO)
    store.append(store.read("a"), ({"role": "user", "content": "more"},))
    store.close()
    store.close()
    conversation = SessionStore(path).read("a")
    assert conversation.turns == (HELLO, ({"role": "user", "content": "more"},))


def test_store_keeps_turns_of_a_program_that_died(path: Path) -> None:
    """Without a close nothing is lost either."""
    dead = SessionStore(path)
    dead.append(dead.read("a"), HELLO)
    assert SessionStore(path).read("a").turns == (HELLO,)


def test_store_is_readable_by_its_owner_only(path: Path) -> None:
    """Conversations are private."""
    SessionStore(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("meanwhile", ["append", "reset", "delete", "delete and begin anew"])
def test_store_adds_nothing_to_a_conversation_that_has_changed(path: Path, meanwhile: str) -> None:
    """An answer to what is no longer there is refused; nothing is mixed."""
    store, other = SessionStore(path), SessionStore(path)
    store.append(store.read("a"), HELLO)
    conversation = store.read("a")
    if meanwhile == "append":
        other.append(other.read("a"), HELLO)
    elif meanwhile == "reset":
        other.reset("a")
    else:
        other.delete("a")
        if meanwhile != "delete":
            other.append(other.read("a"), HELLO)
    before = store.read("a").turns
    with pytest.raises(RequestError, match="'a' was changed by another"):
        store.append(conversation, HELLO)
    assert store.read("a").turns == before


def test_store_begins_a_conversation_once(path: Path) -> None:
    """Of two that begin the same one, the second is refused."""
    store = SessionStore(path)
    first, second = store.read("a"), store.read("a")
    store.append(first, HELLO)
    with pytest.raises(RequestError, match="changed"):
        store.append(second, HELLO)
    assert len(store.read("a").turns) == 1


def test_store_lists_resets_and_deletes() -> None:
    """In memory as in a file."""
    store = SessionStore()
    for name in ("a", "b"):
        store.append(store.read(name), HELLO)
    store.append(store.read("a"), HELLO)
    assert [(info.name, info.num_turns) for info in store.list()] == [("a", 2), ("b", 1)]
    assert all(isinstance(info, SessionInfo) for info in store.list())
    store.reset("a")
    store.reset("nobody")
    assert store.read("a").turns == ()
    assert store.read("a").revision is not None
    assert (store.delete("b"), store.delete("b")) == (True, False)
    assert [info.name for info in store.list()] == ["a"]


def test_store_rolls_back_what_cannot_be_written() -> None:
    """A turn that is no JSON leaves no trace."""
    store = SessionStore()
    for bad in (object(), float("nan")):
        with pytest.raises(RequestError, match="messages: expected JSON"):
            store.append(store.read("a"), ({"role": "user", "content": bad},))
    assert store.list() == []


@pytest.mark.parametrize("name", ["", "x" * 201, 7, None])
def test_store_refuses_bad_names(name: object) -> None:
    """Names are text of a sensible length."""
    with pytest.raises(RequestError, match="session: expected a name"):
        SessionStore().read(name)


@pytest.mark.parametrize("name", ["'; DROP TABLE sessions; --", "a\u0000b", "\U0001f600", " "])
def test_store_takes_any_text_as_a_name(name: str) -> None:
    """Names are values, never statements."""
    store = SessionStore()
    store.append(store.read(name), HELLO)
    assert store.read(name).turns == (HELLO,)
    assert store.delete(name)


def test_store_refuses_files_that_are_not_its_own(tmp_path: Path) -> None:
    """Another file, another database and a later version are left alone."""
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(RequestError, match=r"path: notes.txt"):
        SessionStore(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    with pytest.raises(RequestError, match=r"expected sessions of version 1 in other.db, found 0"):
        SessionStore(other)
    with pytest.raises(RequestError, match="cannot be opened"):
        SessionStore(tmp_path / "missing" / "sessions.db")


def test_store_serves_threads_and_processes_at_once(path: Path) -> None:
    """Each of eight writers with connections of their own gets its turns in, whole."""
    stores = [SessionStore(path) for _ in range(2)]

    def write(i: int) -> None:
        store = stores[i % 2]
        for _ in range(10):
            store.append(store.read(f"s{i}"), HELLO)
            store.list()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))  # which raises what a writer raised
    assert {(info.name, info.num_turns) for info in stores[0].list()} == {
        (f"s{i}", 10) for i in range(8)
    }
