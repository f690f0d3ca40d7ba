"""What both engines' workers share: requests as JSON lines, and a stopwatch.

A worker reads a request per line from stdin, `{"op": name, ...arguments}`, and answers with a line
on stdout: `{"result": ...}` or `{"error": message}`.  Whatever else prints goes to stderr.

Only the standard library: it runs in both environments.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, TypeAlias

Measured: TypeAlias = dict[str, float]


class Engine(Protocol):
    """One engine, as the benchmark sees it.  All token ids are random; all sampling is greedy."""

    def load(
        self, path: str, num_threads: int, context: int, num_streams: int, stream_len: int
    ) -> dict[str, Any]:
        """Load a model and compute one token, CHECK_TOKEN.

        Args:
            context: tokens the single stream may grow to.
            num_streams: parallel streams there may be, each of up to `stream_len` tokens.

        Returns:
            Measured, `load_s` of it before the token; `logits`, the first NUM_CHECK_LOGITS behind
            it; and what the engine says of itself.
        """

    def prefill(self, num_tokens: int) -> Measured:
        """Compute a prompt in chunks of UBATCH, logits of its last token included."""

    def decode(self, depth: int, num_tokens: int) -> Measured:
        """Compute tokens one after the other behind `depth` that are in the cache."""

    def streams(self, num_streams: int, prompt_len: int, num_tokens: int) -> Measured:
        """Compute tokens of several sequences together, each behind a prompt of its own."""

    def load_api(self, path: str, num_threads: int, context: int) -> None:
        """Load the model as a user of the Python API does."""

    def generate(self, prompt_len: int, num_tokens: int, seed: int) -> Measured:
        """Tokens to a user of the Python API; the time is from the first to the last."""


UBATCH = 512  # tokens of a prompt that are computed together, on both sides
CHECK_TOKEN = 100
NUM_CHECK_LOGITS = 256


class Stopwatch:
    """Wall time of a `with` block, and who else used the CPUs meanwhile."""

    def __enter__(self) -> Stopwatch:
        self._others = _cpu_seconds()
        self._own_s = time.process_time()
        self._began_s = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        wall_s = time.perf_counter() - self._began_s
        own_s = time.process_time() - self._own_s
        busy_s, steal_s = (
            after - before for before, after in zip(self._others, _cpu_seconds(), strict=True)
        )
        self.measured: Measured = {
            "seconds": wall_s,
            "own_cores": own_s / wall_s,
            "foreign_cores": max(0.0, busy_s - own_s) / wall_s,
            "stolen_cores": steal_s / wall_s,
        }


def serve(engine: Engine) -> None:
    """Answer requests until stdin ends or `quit` comes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not break the protocol
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        if op == "quit":
            break
        try:
            result = memory() if op == "memory" else getattr(engine, op)(**request)
            reply = {"result": result}
        except Exception as error:  # noqa: BLE001 - the benchmark reports it and goes on
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def memory() -> dict[str, int]:
    """Bytes of this process: the peak, and what is resident now, its own and of mapped files.

    Source: Linux, Documentation/filesystems/proc.rst, table 1-2.
    """
    fields = {
        "VmHWM": "peak_bytes",
        "RssAnon": "anonymous_bytes",
        "RssFile": "file_bytes",
    }
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {
        fields[words[0][:-1]]: int(words[1]) * 1024
        for words in lines
        if words and words[0][:-1] in fields
    }


def _cpu_seconds() -> tuple[float, float]:
    """Seconds all CPUs were busy, and were withheld by the hypervisor, since boot.

    Source: Linux, Documentation/filesystems/proc.rst, section 1.7.
    """
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) * tick_s, steal * tick_s
