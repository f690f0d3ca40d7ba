"""The interactive side of `quintet run`: a prompt with history, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quintet.cli.chat import Chat
from quintet.errors import QuintetError

if TYPE_CHECKING:
    from prompt_toolkit.history import History


def converse(chat: Chat, model: str) -> None:
    """Talk until /bye or Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(history=_history(), key_bindings=keys)
    print(f"{model}: /help for help, /bye to leave")
    converse_with(chat, lambda: session.prompt("> "))


def converse_with(chat: Chat, read_line: Callable[[], str]) -> None:
    """The loop, over any source of lines that raises EOFError at its end."""
    while True:
        try:
            line = read_line().strip()
        except KeyboardInterrupt:  # a line given up, not the program
            continue
        except EOFError:
            return
        if line.startswith("/"):
            if not chat.command(line):
                return
        elif line:
            try:
                chat.say(line)
            except KeyboardInterrupt:
                print()
            except QuintetError as error:
                print(f"quintet: {error}", file=sys.stderr)


def _history() -> History:
    """What was typed before, in the user's state folder; in memory where that cannot be made."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    state = os.environ.get("XDG_STATE_HOME")
    folder = (Path(state) if state else Path.home() / ".local" / "state") / "quintet"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "chat_history"
        path.touch(mode=0o600)
        return FileHistory(str(path))
    return InMemoryHistory()
