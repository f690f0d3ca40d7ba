"""Files of the store: where they are, written whole or not at all, locked between processes.

Locks are the kernel's (flock), so that they end with their holder, and lock files are never
removed, since whoever waits on a removed one waits on nothing.  Some network file systems take
flock for a no-op: nothing here is correct only because of a lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from quintet.errors import CapacityError

LOCK_TIMEOUT_S = 60.0
_POLL_S = 0.05
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def default_root() -> Path:
    """$QUINTET_HOME, else $XDG_DATA_HOME/quintet, else ~/.local/share/quintet.

    Source: XDG Base Directory Specification.
    """
    home = os.environ.get("QUINTET_HOME")
    if home:
        return Path(home).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "quintet"


def make_private(folder: Path) -> Path:
    """The folder, made for its owner alone if it is not there."""
    missing = [folder, *folder.parents]
    for each in reversed(missing):
        if not each.exists():
            with contextlib.suppress(FileExistsError):
                each.mkdir(mode=0o700)
    return folder


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody else has."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(8)}.tmp")


def write_whole(path: Path, content: bytes) -> None:
    """
    Put `content` into `path`: after a crash the file is the old one or the new one.

    Raises:
        CapacityError: the disk is full.
    """
    temporary = temporary_name(path)
    try:
        with full_disk_said(path.parent, len(content)):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)
            settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def settle(temporary: Path, path: Path) -> None:
    """Give a finished file its name, once its content is on the disk."""
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def full_disk_said(folder: Path, num_bytes: int) -> Iterator[None]:
    """Turn the system's "no room" into a CapacityError that says how much was needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise CapacityError(
            f"no room for {num_bytes:,} bytes in {folder}: {error.strerror}; "
            f"{free_bytes(folder):,} bytes are free there",
            resource="disk space",
        ) from error


def free_bytes(folder: Path) -> int:
    """Bytes free on the file system that `folder`, or its nearest parent, is on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def process_is_alive(pid: int) -> bool:
    """Whether a process of this machine has the number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


class FileLock:
    """
    A lock on a file that is there for nothing else, exclusive between processes and threads.

    Args:
        path: the lock file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it."""
        if self._descriptor is not None:
            raise RuntimeError(f"{self.path} is locked by this object already")
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)  # for who waits, to name
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, *_DISK_FULL):
                raise
            return True  # no locks here, or no room for our number: go on without
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> str:
        """Who has the lock, for a message."""
        try:
            return f"process {int(self.path.read_bytes()[:20])}"
        except (OSError, ValueError):
            return "another process"

    @contextlib.contextmanager
    def held(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """
        With the lock, waiting for it.

        Raises:
            CapacityError: somebody kept it for `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not self.try_acquire():
            if time.monotonic() > deadline:
                raise CapacityError(
                    f"{self.path} was locked by {self.holder()} for {timeout_s:.0f} s",
                    resource="store lock",
                )
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            self.release()
