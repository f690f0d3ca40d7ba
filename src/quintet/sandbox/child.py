"""The helper's side: limits, then one task after the other until its client is gone.

Once it is set up, the process can open nothing any more, neither file nor socket, start no other
process and write no file; it has what it needs to compute, and two pipes.

Source: Linux, setrlimit(2).
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quintet.errors import QuintetError
from quintet.sandbox.frames import Ended, encode, read, write

Work = Callable[[Any], Any]


def serve(prepare: Callable[[Any], Work], *, max_open_files: int = 0) -> None:
    """
    Answer tasks from stdin on stdout.

    Args:
        prepare: from what the client set up to what does a task.  It runs under the limits too;
            what it raises is answered to every task.
        max_open_files: that it may have at a time, for work that is on files.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tasks, answers = os.dup(0), os.dup(1)
    _close_standard_streams()
    setup, seconds, memory_bytes = read(tasks, None)
    _forbid_more_than(memory_bytes, max_open_files)
    write(answers, encode("ready"), None)
    work: Work | None = None
    while True:
        try:
            task = read(tasks, None)
        except Ended:  # the client is gone
            return
        _limit_cpu(seconds)
        try:
            if work is None:
                work = prepare(setup)
            answer = ["done", work(task)]
        except QuintetError as error:
            answer = ["refused", [type(error).__name__, str(error), dict(vars(error))]]
        except MemoryError:
            return  # memory that is left in pieces helps nobody: the next helper starts afresh
        except RecursionError:
            answer = ["failed", "is nested too deep"]
        except Exception as error:  # noqa: BLE001 - whatever hostile input brings about
            answer = ["failed", f"fails: {type(error).__name__}"]
        write(answers, encode(answer), None)


def _close_standard_streams() -> None:
    """What code prints by mistake must not get between the answers."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.close(nowhere)


def _forbid_more_than(memory_bytes: int, max_open_files: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))
    max_open_files = min(max_open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_open_files, max_open_files))


def _limit_cpu(seconds: float) -> None:
    """For this task; the client kills by the clock, but it may be gone or stopped."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(usage.ru_utime + usage.ru_stime + seconds + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
