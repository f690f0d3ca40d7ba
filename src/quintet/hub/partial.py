"""Downloads that are not whole yet, and who is writing them.

    sha256-HEX.partial                nobody's: the next download goes on with it
    sha256-HEX.HOST.PID.RANDOM.partial  somebody's, unless that process is gone

A download takes what is there by renaming it, which succeeds for one process only.  So no two
write to one file, even where the file system's locks do nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from quintet.hub.files import process_is_alive

# A transfer that stalls is given up far sooner: who has not written for so long is gone.
_ABANDONED_S = 3600.0
_ENDING = ".partial"


@contextlib.contextmanager
def claimed(blob: Path) -> Iterator[Path]:
    """
    A file of our own to download into, with what was left of an earlier download in it.

    On leaving, whatever is still under that name is there for the next one.
    """
    mine = blob.with_name(f"{blob.name}.{_host()}.{os.getpid()}.{secrets.token_hex(8)}{_ENDING}")
    for path in sorted(_of(blob), key=_size, reverse=True):
        if _is_nobodys(path, blob):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, mine)
                break
    try:
        yield mine
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.rename(mine, blob.with_name(blob.name + _ENDING))


def progress(blob: Path) -> int:
    """Bytes that the furthest download of a blob has."""
    return max(map(_size, _of(blob)), default=0)


def _of(blob: Path) -> list[Path]:
    return list(blob.parent.glob(f"{blob.name}*{_ENDING}"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_nobodys(path: Path, blob: Path) -> bool:
    owner = path.name.removeprefix(blob.name).removesuffix(_ENDING)
    match = re.fullmatch(r"\.([^.]+)\.(\d{1,10})\.[0-9a-f]+", owner)
    if match is None:
        return owner == ""
    if match[1] == _host() and not process_is_alive(int(match[2])):
        return True
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    except FileNotFoundError:
        return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename)[:40] or "host"
