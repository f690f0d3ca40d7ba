"""Conversations in an SQLite file.

Write-ahead logging lets a reader work while another process writes, and leaves the
file whole if the program dies.  A turn, what the user said and what came of it, is one row and
is written in one transaction: no conversation ends with a question nobody answered.

Source: SQLite documentation, "Write-Ahead Logging".
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from quintet.errors import CapacityError, RequestError

Message: TypeAlias = Mapping[str, Any]
Turn: TypeAlias = tuple[Message, ...]

MAX_NAME_CHARS = 200
_BUSY_TIMEOUT_S = 10.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE sessions (
    name TEXT PRIMARY KEY,
    system TEXT,
    first_turn INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE turns (
    session TEXT NOT NULL REFERENCES sessions (name) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    messages TEXT NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """
    What is known of a conversation without reading it.

    Args:
        name: its own.
        num_turns: exchanges in it.
        created_at, updated_at: seconds since 1970.
    """

    name: str
    num_turns: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """
    A conversation as it was read.

    Args:
        name: its own.
        system: the system prompt, if there is one.
        turns: all of them, the oldest first.
        first_turn: the first one the model still sees; those before are kept, not shown.
        revision: changes with every write; None for a conversation that is not stored yet.
    """

    name: str
    system: str | None = None
    turns: tuple[Turn, ...] = ()
    first_turn: int = 0
    revision: int | None = None


class SessionStore:
    """
    Named conversations.  Safe to use from several threads, and several processes.

    Args:
        path: of the file, made readable by its owner only where it does not exist.  None
            keeps everything in memory.

    Raises:
        RequestError: the file cannot be opened, or is not one of ours.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._lock = threading.Lock()
        self._name = "memory" if path is None else Path(path).name
        try:
            if path is not None:
                # SQLite would make it readable by whoever the umask lets.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(
                ":memory:" if path is None else os.fspath(path),
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise RequestError(
                f"{self._name} cannot be opened: {error}", parameter="path"
            ) from None
        # Also for a store that nobody closes, or that turns out not to be one below.
        self._finalizer = weakref.finalize(self, self._database.close)
        self._open()

    def read(self, name: str) -> Conversation:
        """A conversation; an empty one where there is none of this name."""
        _check_name(name)
        with self._using() as database:
            found = database.execute(
                "SELECT system, first_turn, revision FROM sessions WHERE name = ?", (name,)
            ).fetchone()
            if found is None:
                return Conversation(name)
            rows = database.execute(
                "SELECT messages FROM turns WHERE session = ? ORDER BY number", (name,)
            ).fetchall()
        system, first_turn, revision = found
        turns = tuple(tuple(json.loads(text)) for (text,) in rows)
        return Conversation(name, system, turns, first_turn, revision)

    def append(self, to: Conversation, turn: Sequence[Message]) -> None:
        """
        Add a turn to a conversation as it was read, and keep its `system` and `first_turn`.

        Raises:
            RequestError: it has been written to, reset or deleted since; nothing is added.
                Or a message holds what JSON cannot.
        """
        try:
            text = json.dumps(list(turn), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RequestError(f"expected JSON values: {error}", parameter="messages") from None
        now = time.time()
        with self._writing() as database:
            if to.revision is None:
                changed = database.execute(
                    "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
                    (to.name, to.system, to.first_turn, _new_revision(), now, now),
                ).rowcount
            else:
                changed = database.execute(
                    "UPDATE sessions SET system = ?, first_turn = ?, revision = ?, updated_at = ? "
                    "WHERE name = ? AND revision = ?",
                    (to.system, to.first_turn, _new_revision(), now, to.name, to.revision),
                ).rowcount
            if not changed:
                raise RequestError(
                    f"{to.name!r} was changed by another while the answer was made",
                    parameter="session",
                )
            database.execute("INSERT INTO turns VALUES (?, ?, ?)", (to.name, len(to.turns), text))

    def reset(self, name: str) -> None:
        """Forget what was said; the system prompt stays.  A no-op for an unknown name."""
        _check_name(name)
        with self._writing() as database:
            database.execute("DELETE FROM turns WHERE session = ?", (name,))
            database.execute(
                "UPDATE sessions SET first_turn = 0, revision = ?, updated_at = ? WHERE name = ?",
                (_new_revision(), time.time(), name),
            )

    def delete(self, name: str) -> bool:
        """Forget a conversation altogether; whether there was one."""
        _check_name(name)
        with self._writing() as database:
            return database.execute("DELETE FROM sessions WHERE name = ?", (name,)).rowcount > 0

    def list(self) -> list[SessionInfo]:
        """All conversations, the one written to last first."""
        with self._using() as database:
            rows = database.execute(
                "SELECT name, (SELECT count(*) FROM turns WHERE session = name), created_at, "
                "updated_at FROM sessions ORDER BY updated_at DESC, name"
            ).fetchall()
        return [SessionInfo(*row) for row in rows]

    def close(self) -> None:
        """Close the file.  Idempotent."""
        with self._lock:
            self._finalizer()

    def _open(self) -> None:
        with self._using() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA foreign_keys = ON")
        with self._writing() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise RequestError(
                    f"expected sessions of version {_VERSION} in {self._name}, found {version}",
                    parameter="path",
                )

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The database, for one thread at a time; its errors as ours."""
        with self._lock:
            try:
                yield self._database
            except sqlite3.OperationalError as error:
                raise CapacityError(f"{self._name}: {error}", resource="session store") from None
            except sqlite3.DatabaseError as error:
                raise RequestError(f"{self._name}: {error}", parameter="path") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, which an error rolls back."""
        with self._using() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


def _new_revision() -> int:
    """Not the next number: a conversation deleted and begun anew must not have an old one."""
    return secrets.randbits(62)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARS:
        raise RequestError(
            f"expected a name of 1 to {MAX_NAME_CHARS} characters, found {name!r:.50}",
            parameter="session",
        )
