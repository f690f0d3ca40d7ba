"""One helper process and the pipes to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from quintet.errors import EngineError
from quintet.sandbox.frames import Ended, encode, read, write

# What Python and the system's library read, and no secrets.
_PASSED = ("LANG", "LD_LIBRARY_PATH", "PATH", "TZ")
_START_S = 60.0  # on a machine that has much else to do


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one task may take.

    Args:
        seconds: until the process is killed, by the clock; as much by the CPU's.
        memory_bytes: address space beyond what the process has once it is set up.
    """

    seconds: float = 10.0
    memory_bytes: int = 512 * 2**20


class Helper:
    """
    A process that runs a module, whose `main` calls `child.serve`.

    Args:
        module: its full name.
        setup: handed to it before the first task, as JSON.
        limits: of each task.

    Raises:
        EngineError: it could not be started.
    """

    def __init__(self, module: str, setup: Any, limits: Limits) -> None:
        if not sys.executable:
            raise EngineError("the path of the Python interpreter is unknown: no helper can start")
        self._limits = limits
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what it has to say may be a client's text
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for us
            )
        except OSError as error:
            raise EngineError(f"a helper process could not be started: {error}") from error
        pipes = self._process.stdin, self._process.stdout
        self._to, self._from = (pipe.fileno() for pipe in pipes if pipe is not None)
        os.set_blocking(self._to, False)
        try:
            order = [setup, limits.seconds, limits.memory_bytes]
            deadline_s = time.monotonic() + _START_S
            write(self._to, encode(order), deadline_s)
            read(self._from, deadline_s)  # it is ready
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise EngineError("a helper process did not start") from error
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def run(self, task: Any) -> Any:
        """What it makes of a task.

        Raises:
            Late: it took longer than it may.  The helper is of no more use.
            Ended: it took more memory than it may, or crashed.  As above.
        """
        deadline_s = time.monotonic() + self._limits.seconds
        write(self._to, encode(task), deadline_s)
        answer = read(self._from, deadline_s)
        if not isinstance(answer, list) or len(answer) != 2:
            raise Ended
        return answer

    def kill(self) -> None:
        """End it at once; from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End it and give back what it took here."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    modules = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return {**passed, "PYTHONPATH": modules, "PYTHONDONTWRITEBYTECODE": "1"}
