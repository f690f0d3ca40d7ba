"""The benchmark's side of a worker process."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from quintet.errors import QuintetError

_FOLDER = Path(__file__).parents[1]


class WorkerError(QuintetError):
    """An engine could not do what it was asked, or its process ended."""


class Worker:
    """An engine in a process of its own.  A context manager; leaving it ends the process.

    Args:
        python: the interpreter of its environment.
        module: what it runs.
        environment: variables on top of this process's.
        log: where its stderr goes.
    """

    def __init__(
        self, python: Path, module: str, environment: Mapping[str, str], log: Path
    ) -> None:
        self.module = module
        self._log = log
        search = [str(_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", module],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(search)} | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    def request(self, op: str, *, timeout_s: float = 1800, **arguments: Any) -> Any:
        """Have the worker do something and return its result.

        Raises:
            WorkerError: it failed, ended, or took longer than `timeout_s`; it is of no more use
                after the latter two.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        except BrokenPipeError:
            ready = [self._process.stdout]
        if not ready:
            raise WorkerError(f"{self.module}: no answer to {op} within {timeout_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise WorkerError(f"{self.module} ended ({status}) at {op}; see {self._log.name} there")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.module}: {op}: {reply['error']}")
        return reply["result"]

    def cpu_seconds(self) -> float:
        """Processor time of the worker so far, all threads.

        Source: Linux, Documentation/filesystems/proc.rst, table 1-4.
        """
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process.  Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
