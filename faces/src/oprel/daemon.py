"""The server of this user on this machine: found if it runs, started if it does not, stopped.

A daemon holds a kernel lock (flock) for as long as it lives, and writes its address beside the
lock once it listens there.  Who finds the lock held may trust the address: process numbers that
are used again and files that a crash left behind deceive nobody.

    $XDG_STATE_HOME/oprel/PORT.lock   held by the daemon of that port
    $XDG_STATE_HOME/oprel/PORT.json   its process, address and folder of models
    $XDG_STATE_HOME/oprel/PORT.log    what it had to say
    $XDG_STATE_HOME/oprel/limits.json what each model may take, for its next load
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from oprel.core.config import Config
from oprel.core.exceptions import BackendError, ValidationError
from quintet.hub import files

DEFAULT_PORT = 11434
DEFAULT_HOST = f"http://localhost:{DEFAULT_PORT}"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
IDLE_TIMEOUT_S = 1800.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_POLL_S = 0.05
_MAX_STATE_BYTES = 2**20


@dataclass(frozen=True)
class Daemon:
    """
    A daemon that runs.

    Args:
        pid: its process.
        url: where it listens.
        cache_dir: where its models are.
    """

    pid: int
    url: str
    cache_dir: str


def folder() -> Path:
    """Where daemons keep their files; made if it is not there.

    Source: XDG Base Directory Specification, $XDG_STATE_HOME.
    """
    state = os.environ.get("XDG_STATE_HOME")
    return files.make_private((Path(state) if state else Path.home() / ".local/state") / "oprel")


def server_address() -> tuple[str, int]:
    """$OPREL_SERVER_HOST and $OPREL_SERVER_PORT; this machine at Ollama's port without them.

    Raises:
        ValidationError: the port is no port.
    """
    host = os.environ.get("OPREL_SERVER_HOST") or "localhost"
    text = os.environ.get("OPREL_SERVER_PORT") or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValidationError(f"OPREL_SERVER_PORT: expected a port, found {text!r:.60}")
    return host, int(text)


def server_url() -> str:
    """The address of this user's server."""
    host, port = server_address()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def resolved_url(host: str) -> str:
    """
    The address a client was given, in full; the default one stands for the environment's.

    Raises:
        ValidationError: it is no address.
    """
    if host.rstrip("/") == DEFAULT_HOST:
        return server_url()
    url = host if "://" in host else f"http://{host}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValidationError(f"host: expected an address, found {host!r:.100}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValidationError(f"host: expected an address, found {host!r:.100}")
    if port is None and "://" not in host:
        url = f"{url.rstrip('/')}:{DEFAULT_PORT}"
    return url.rstrip("/")


def is_own(url: str) -> bool:
    """Whether this is where this user's daemon is, or would be."""
    parts = urlsplit(url)
    host, port = server_address()
    is_here = parts.scheme == "http" and parts.hostname in LOOPBACK and host in LOOPBACK
    return is_here and parts.port == port


def find(port: int) -> Daemon | None:
    """The daemon of that port; None while none listens there."""
    lock = files.FileLock(folder() / f"{port}.lock")
    if lock.try_acquire():
        lock.release()
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with open(folder() / f"{port}.json", "rb") as file:
            state = json.loads(file.read(_MAX_STATE_BYTES))
        return Daemon(int(state["pid"]), str(state["url"]), str(state["cache_dir"]))
    return None  # it has not come so far


def ensure(config: Config | None = None) -> Daemon:
    """
    The daemon of the port the environment names, started if none runs.

    Raises:
        BackendError: it does not start, for one because another server has the port.
    """
    host, port = server_address()
    found = find(port)
    if found is not None:
        return found
    if host not in LOOPBACK:
        raise BackendError(f"no server answers at {server_url()}: daemons start on this machine")
    log = folder() / f"{port}.log"
    command = _command(host, port, config or Config())
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    # Not subprocess: it outlives this process, which need not keep an eye on it.
    pid = os.posix_spawn(
        command[0],
        command,
        _environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), writing, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    status: int | None = None
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        status = _ended(pid) if status is None else status
        found = find(port)  # ours, or that of somebody who started one at the same time
        if found is not None:
            return found
        if status not in (None, _TAKEN):
            raise BackendError(f"the server did not start: {_last_line(log)}")
        time.sleep(_POLL_S)
    os.kill(pid, signal.SIGTERM)
    raise BackendError(f"the server did not start within {START_TIMEOUT_S:.0f} s; see {log}")


def stop(port: int) -> bool:
    """
    End the daemon of that port, once its requests are done; whether there was one.

    Raises:
        BackendError: it does not end.
    """
    found = find(port)
    if found is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while find(port) is not None:
        if time.monotonic() > deadline:
            raise BackendError(f"process {found.pid} does not end")
        time.sleep(_POLL_S)
    return True


def announce(port: int, daemon: Daemon) -> None:
    """Write down where this process listens; for who holds the port's lock."""
    state = json.dumps(dataclasses.asdict(daemon)).encode()
    files.write_whole(folder() / f"{port}.json", state)


def lock_of(port: int) -> files.FileLock:
    """The lock that the daemon of a port holds."""
    return files.FileLock(folder() / f"{port}.lock")


def memory_limits() -> dict[str, int]:
    """MiB that models may take, by name."""
    with contextlib.suppress(OSError, ValueError):
        with open(folder() / "limits.json", "rb") as file:
            limits = json.loads(file.read(_MAX_STATE_BYTES))
        if isinstance(limits, dict):
            return {k: v for k, v in limits.items() if isinstance(v, int) and v > 0}
    return {}


def set_memory_limit(name: str, max_memory_mb: int | None) -> bool:
    """Say what a model may take the next time the daemon loads it; whether that is new."""
    with files.FileLock(folder() / "limits.lock").held():
        limits = memory_limits()
        if limits.get(name) == max_memory_mb:
            return False
        limits.pop(name, None)
        if max_memory_mb is not None:
            limits[name] = max_memory_mb
        files.write_whole(folder() / "limits.json", json.dumps(limits).encode())
    return True


_TAKEN = 75  # the status of a process that found another one to be the daemon (EX_TEMPFAIL)


def _command(host: str, port: int, config: Config) -> list[str]:
    command = [sys.executable, "-m", "oprel.serving", "--host", host, "--port", str(port)]
    for name in ("cache_dir", "default_max_memory_mb", "n_threads"):
        if (value := getattr(config, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--ctx-size", str(config.ctx_size), "--batch-size", str(config.batch_size)]
    idle = os.environ.get("OPREL_SERVER_IDLE_TIMEOUT")
    return [*command, "--idle-timeout", idle or str(IDLE_TIMEOUT_S)]


def _environment() -> dict[str, str]:
    """This process's, with what it found its modules by as it is from another folder."""
    import quintet

    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    roots = [Path(__file__).parents[1], Path(quintet.__file__).parents[1]]
    folders = [os.path.abspath(folder) for folder in [*filter(None, given), *map(str, roots)]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def _ended(pid: int) -> int | None:
    """The status of a child that has ended; None while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else has waited for it
        return 1
    return os.waitstatus_to_exitcode(status) if ended else None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
