"""Many streams at once from a server: are all complete, how evenly do tokens come, at what price?

    python benchmarks/bench_streams.py [--streams 256] [--tokens 64] [--rounds 3]
        [--peer-python PYTHON] [--output FILE]

Starts `quintet serve demo`, opens all streams together over raw sockets, and reads each to its
end.  With --peer-python, a Python that has llama-cpp-python[server], the same against `python -m
llama_cpp.server` with the same file, in alternating rounds.  That server works on one request at a
time (its `get_llama_proxy` holds a lock for the length of an answer), so its streams mostly wait;
what can be compared is the server's own CPU per streamed token and the rate of the whole.

Processor time is user and system time of the server's processes, from /proc/PID/stat: of Quintet
the server, which speaks HTTP, and its worker, which computes, apart from each other.  Both sides
run with one thread for the model; the client has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "src" / "quintet" / "hub" / "data" / "demo.gguf"
END_IDS = ("2039", "2040", "2041")  # of the demo model's vocabulary
START_S = 60.0
READ_S = 120.0  # until a stream counts as incomplete


@dataclass(frozen=True)
class Stream:
    """One answer as its client saw it; times in seconds."""

    is_complete: bool
    num_tokens: int
    first_s: float
    gaps_s: tuple[float, ...]


async def read_stream(port: int, model: str, number: int, num_tokens: int) -> Stream:
    """Ask for an answer and time its events."""
    body = json.dumps(
        {
            "model": model,
            "prompt": f"{number}: Tell me a short story about a dog.",
            "max_tokens": num_tokens,
            "temperature": 0.8,
            "seed": number,
            "stream": True,
            # As many tokens from each: the ends of a text are never drawn.
            "logit_bias": dict.fromkeys(END_IDS, -100),
        }
    ).encode()
    began_s = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times_s: list[float] = []
    reasons: list[str] = []
    is_done = False
    try:
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        while line := await asyncio.wait_for(
            reader.readline(), began_s + READ_S - time.perf_counter()
        ):
            if not line.startswith(b"data: "):
                continue
            data = line[len(b"data: ") :].strip()
            if data == b"[DONE]":
                is_done = True
                continue
            choices = json.loads(data).get("choices") or [{}]
            if choices[0].get("text"):
                times_s.append(time.perf_counter())
            if choices[0].get("finish_reason"):
                reasons.append(choices[0]["finish_reason"])
    except (OSError, asyncio.TimeoutError):
        is_done = False
    finally:
        writer.close()
    first_s = times_s[0] - began_s if times_s else 0.0
    gaps_s = tuple(later - sooner for sooner, later in itertools.pairwise(times_s))
    return Stream(is_done and len(reasons) == 1, len(times_s), first_s, gaps_s)


async def read_all(port: int, model: str, num_streams: int, num_tokens: int) -> list[Stream]:
    """All streams together."""
    return await asyncio.gather(
        *(read_stream(port, model, number, num_tokens) for number in range(num_streams))
    )


def cpu_s(pid: int) -> float:
    """User and system time of a process; proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Processes that this one has started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *children(child)]
    return found


@contextlib.contextmanager
def server(command: list[str], port: int, **environment: str) -> Iterator[int]:
    """Run a server until the block ends; yields its process id once it lists its models."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline_s:
                    process.kill()
                    raise RuntimeError(f"{command}: {process.communicate()[1][-2000:]}") from None
                time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def measure(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """One round: a fresh server, one stream to warm up, then all."""
    port = free_port()
    if side == "quintet":
        model = "demo"
        command = [sys.executable, "-m", "quintet", "serve", "demo", "--port", str(port)]
        command += ["--threads", "1"]
        environment = {"PYTHONPATH": str(ROOT / "src")}
    else:
        model = str(MODEL)
        command = [options.peer_python, "-m", "llama_cpp.server", "--model", model]
        command += ["--port", str(port), "--n_threads", "1", "--n_ctx", "512"]
        command += ["--interrupt_requests", "false"]
        environment = {}
    with server(command, port, **environment) as pid:
        asyncio.run(read_all(port, model, 1, 8))
        workers = children(pid)
        before = cpu_s(pid), sum(map(cpu_s, workers))
        began_s = time.perf_counter()
        streams = asyncio.run(read_all(port, model, options.streams, options.tokens))
        wall_s = time.perf_counter() - began_s
        after = cpu_s(pid), sum(map(cpu_s, workers))
    num_events = sum(stream.num_tokens for stream in streams)
    gaps_s = sorted(gap for stream in streams for gap in stream.gaps_s)
    firsts_s = sorted(stream.first_s for stream in streams)
    return {
        "side": side,
        "streams": len(streams),
        "complete": sum(stream.is_complete for stream in streams),
        "events": num_events,
        "events_per_s": num_events / wall_s,
        "first_p50_s": statistics.median(firsts_s),
        "first_max_s": firsts_s[-1],
        "gap_p50_ms": 1000 * statistics.median(gaps_s),
        "gap_p99_ms": 1000 * gaps_s[int(0.99 * (len(gaps_s) - 1))],
        "gap_max_ms": 1000 * gaps_s[-1],
        "server_cpu_us_per_event": 1e6 * (after[0] - before[0]) / num_events,
        "worker_cpu_us_per_event": 1e6 * (after[1] - before[1]) / num_events,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", help="a Python that has llama-cpp-python[server]")
    parser.add_argument("--output", type=Path, help="write all rounds there, as JSON")
    options = parser.parse_args()
    sides = ["quintet", *(["llama-cpp-python"] if options.peer_python else [])]
    rounds = [measure(side, options) for _ in range(options.rounds) for side in sides]
    if options.output is not None:
        options.output.write_text(json.dumps(rounds, indent=1) + "\n")
    for side in sides:
        own = [found for found in rounds if found["side"] == side]
        print(f"{side}, median of {len(own)} rounds:")
        for name in list(own[0])[1:]:
            print(f"  {name:26} {statistics.median(found[name] for found in own):12.2f}")
    is_complete = all(found["complete"] == found["streams"] for found in rounds)
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
