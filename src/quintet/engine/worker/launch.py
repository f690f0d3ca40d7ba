"""A worker's process: started, watched, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from quintet.errors import EngineError

# Of the environment a worker gets what Python, the loader and our kernels read, and no secrets.
LOG_FORMAT_VARIABLE = "QUINTET_LOG_FORMAT"  # "text" or "json": of what a worker logs
_PASSED = {
    "HOME",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "PATH",
    "TMPDIR",
    "TZ",
    "QUINTET_KERNELS",
    LOG_FORMAT_VARIABLE,
}
_PASSED_PREFIXES = ("LC_", "PYTHON", "MALLOC_", "ASAN_", "UBSAN_")


class WorkerProcess:
    """
    A process that runs `child.main`.

    It is a new interpreter, not a fork: the parent has threads.  Two pipes tie the
    processes together.  The child's stdin ends when the parent is gone, `fileno()`
    becomes readable when the child is.

    Start it from a thread that outlives it: the child asks the kernel to be killed
    when that thread ends.

    Args:
        directory: of the sockets; see `channel.private_directory`.

    Raises:
        EngineError: no process can be started.
    """

    def __init__(self, directory: Path) -> None:
        if not sys.executable:
            raise EngineError("the path of the Python interpreter is unknown: no worker can start")
        self._alive, child_end = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "quintet.engine.worker.child",
                    str(directory),
                    str(os.getpid()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # ours may be somebody's data; stderr is the log
                pass_fds=(child_end,),
                cwd="/",  # or `-m` would look for modules where we happen to be
                env=environment(os.environ),
                start_new_session=True,  # Ctrl-C is for us, and we end our children in order
            )
        except OSError as error:
            os.close(self._alive)
            raise EngineError(f"a worker process could not be started: {error}") from error
        finally:
            os.close(child_end)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def fileno(self) -> int:
        """A file descriptor that becomes readable when the process has ended."""
        return self._alive

    def wait(self, timeout_s: float) -> str:
        """Wait for its end, which `kill` brings about after `timeout_s`; says how it ended."""
        try:
            status = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._popen.wait()
        return describe_exit(status)

    def kill(self) -> None:
        """End it at once.  Idempotent."""
        self._popen.kill()

    def close(self) -> None:
        """End the process and give back what it took here."""
        self.kill()
        self._popen.wait()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        os.close(self._alive)


def describe_exit(status: int) -> str:
    """How a process ended, from its `Popen.returncode`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: the same modules as here, and nothing secret."""
    passed = {
        name: value
        for name, value in ours.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }
    return {**passed, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}
