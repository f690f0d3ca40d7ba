"""Model files read by a helper process before anybody else maps them.

What a file says decides how much is allocated and where is read.  The readers check all of it;
should one of them be wrong, it is wrong in a process that nobody misses, with little memory and
time, and nothing it could write to.
"""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Final

from quintet.errors import ModelFormatError
from quintet.sandbox.helper import Limits
from quintet.sandbox.pool import Pool, Refused

_log = logging.getLogger(__name__)

_SECONDS: Final = 60.0
_MEMORY_BYTES: Final = 2 * 2**30  # vocabularies of a quarter of a million tokens take a tenth
_MAX_FILES: Final = 100_000
_SHARD: Final = re.compile(r"(.*)-[0-9]{5}-of-([0-9]{5})\.gguf", re.IGNORECASE)


class FileCheck:
    """
    Reads models on trial; a model that has not changed since, once.  Safe to use from several
    threads.

    Args:
        limits: of one model.  The size of its files, which are mapped, comes on top.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits(_SECONDS, _MEMORY_BYTES)
        self._lock = threading.Lock()
        self._known: set[tuple[object, ...]] = set()

    def check(self, path: Path) -> None:
        """
        Read a model's files as loading it would: headers, configuration, tensors' shapes and
        places, vocabulary; the weights' values are not looked at.

        Args:
            path: a GGUF file, a safetensors file, or a Hugging Face directory.

        Raises:
            ModelFormatError: as when it is loaded; also where reading it takes too much.
            UnsupportedModelError, ModelNotFoundError, RequestError: as when it is loaded.
            EngineError: no helper could be started.
            OSError: the files cannot be looked at.
        """
        path = path.absolute()
        seen, num_bytes = _state(path)
        with self._lock:
            if seen in self._known:
                return
        limits = Limits(self._limits.seconds, self._limits.memory_bytes + num_bytes)
        pool = Pool("quintet.engine.file_check_helper", None, limits, size=1)
        try:
            pool.run(str(path))
        except Refused as error:
            raise ModelFormatError(f"reading it {error.reason}", path=path) from None
        finally:
            pool.close()
        _log.info("a model's files were read on trial")
        with self._lock:
            self._known.add(seen)


def _state(path: Path) -> tuple[tuple[object, ...], int]:
    """What changes when one of a model's files does, and their size in bytes."""
    shard = _SHARD.fullmatch(path.name)
    if path.is_dir():
        files = sorted(path.iterdir())
    elif path.suffix == ".safetensors":  # what describes it lies beside it
        files = sorted(path.parent.iterdir())
    elif shard is not None:
        others = (_SHARD.fullmatch(file.name) for file in path.parent.iterdir())
        names = (other[0] for other in others if other and other.groups() == shard.groups())
        files = sorted(path.parent / name for name in names)
    else:
        files = [path]
    if len(files) > _MAX_FILES:
        raise ModelFormatError(f"expected at most {_MAX_FILES:,} files", path=path)
    states, num_bytes = [], 0
    for file in files:
        status = file.stat()
        num_bytes += status.st_size
        states.append((str(file), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(states), num_bytes
