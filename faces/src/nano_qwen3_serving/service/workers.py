"""Several processes that serve one socket, or one that starts again when its files change."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import nano_qwen3_serving
import quintet

_log = logging.getLogger("nano_qwen3_serving")
_TICK_S = 0.3
_RESTART_AFTER_S = 1.0
_WRONG_OPTIONS = 2  # the exit status that starting again would not change


class Workers:
    """
    Child processes with the same command line and the same socket.

    Args:
        arguments: of this program, which the children get.
        listener: what they serve.
        count: how many.
        watched: files and folders of sources; a change starts the children again.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        listener: socket.socket,
        count: int,
        watched: Iterable[Path] = (),
    ) -> None:
        self._arguments = list(arguments)
        self._listener = listener
        self._count = count
        self._watched = list(watched)
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run them until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        seen = self._modified()
        self._children = [self._start() for _ in range(self._count)]
        status = 0
        while not self._stopping.wait(_TICK_S):
            if self._watched and (now := self._modified()) != seen:
                seen = now
                _log.warning("files changed, starting again")
                self._end()
                self._children = [self._start() for _ in range(self._count)]
            status = self._replace_ended()
            if status:
                break
        self._end()
        return status

    def _replace_ended(self) -> int:
        for index, child in enumerate(self._children):
            status = child.poll()
            if status is None:
                continue
            if status == _WRONG_OPTIONS and not self._watched:
                return status
            if status == _WRONG_OPTIONS:
                continue  # until the files change
            _log.warning("worker %d ended with status %d, starting another", child.pid, status)
            time.sleep(_RESTART_AFTER_S)
            self._children[index] = self._start()
        return 0

    def _start(self) -> subprocess.Popen[bytes]:
        number = self._listener.fileno()
        module = "nano_qwen3_serving.service.start"
        return subprocess.Popen(
            [sys.executable, "-m", module, f"--listener={number}", *self._arguments],
            pass_fds=[number],
        )

    def _end(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self._children:
            child.wait()

    def _modified(self) -> dict[Path, int]:
        found = (
            file
            for path in self._watched
            for file in (path.rglob("*.py") if path.is_dir() else [path])
        )
        return {file: file.stat().st_mtime_ns for file in found if file.exists()}


def source_files(config: Path | None) -> list[Path]:
    """What `--reload` watches: both packages, the program's own folder, the configuration."""
    packages = [Path(module.__path__[0]) for module in (nano_qwen3_serving, quintet)]
    return [*packages, *Path.cwd().glob("*.py"), *([] if config is None else [config])]
