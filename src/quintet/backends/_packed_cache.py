"""Packed weights in a file, mapped by the next start instead of packed again.

    header, 2 MiB | packed matrices, as they lie in memory

The header is a digest of all that the rest depends on (the model's files, the matrices with their
layouts and places, the layouts' version) and a checksum of the rest.  Both are compared, never
interpreted: a file that is stale, damaged, cut off or somebody else's is packed anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import struct
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quintet._native import LAYOUTS_VERSION
from quintet.formats.weights import SourceIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quintet._native import Plan

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<8sIQ32s")  # magic, version of this file format, bytes that follow, digest
_CHECKSUM = struct.Struct("<Q")  # behind it
_MAGIC = b"QNTPACK\0"
_VERSION = 1
# A huge page's size, so that file systems with large folios can map the rest by huge pages.
_DATA_OFFSET = 2 << 20
_CHUNK_BYTES = 32 << 20


def default_cache_directory() -> Path:
    """$XDG_CACHE_HOME/quintet/packed, or the same under ~/.cache.

    Source: XDG Base Directory Specification, version 0.8.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    root = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
    return root / "quintet" / "packed"


@dataclass(frozen=True)
class PackedCache:
    """One model's file in a cache directory.

    Args:
        directory: made if it is not there; must be its owner's alone to write to.
        identity: of the model's files.
    """

    directory: Path
    identity: SourceIdentity

    def read_into(self, plan: Plan, names: Sequence[str]) -> bool:
        """Map the weights into a plan that has all its matrices, `names`, and no memory yet.

        Returns:
            False where there is no such file, or not for these weights.
        """
        path = self._path(plan, names)
        try:
            if not _is_private(os.stat(self.directory)):
                return False
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
            size = _DATA_OFFSET + plan.weight_bytes
            if not (
                stat.S_ISREG(status.st_mode) and _is_private(status) and status.st_size == size
            ):
                return False
            header = os.pread(descriptor, _HEADER.size + _CHECKSUM.size, 0)
            if header[: _HEADER.size] != self._header(plan, names):
                return False
            if not plan.map_weights(descriptor, _DATA_OFFSET):
                return False
            if header[_HEADER.size :] == _CHECKSUM.pack(plan.weights_checksum()):
                return True
            logger.warning("The packed weights in %s are damaged", path)
            plan.unmap_weights()
            return False
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def write_from(self, plan: Plan, names: Sequence[str]) -> None:
        """Write a plan's packed weights; whole, or not at all.

        A directory that is others' to write to, or a full disk, is logged: the model runs without.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_private(os.stat(self.directory)):
                logger.warning("The packed weights are not kept: %s is not private", self.directory)
                return
            descriptor, temporary = tempfile.mkstemp(dir=self.directory, prefix="unfinished-")
            try:
                self._write(descriptor, plan, names)
                os.replace(temporary, self._path(plan, names))
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            logger.warning("The packed weights are not kept: %s", error)

    def _write(self, descriptor: int, plan: Plan, names: Sequence[str]) -> None:
        try:
            data = plan.packed_weights().data
            begin = 0
            while begin < len(data):
                chunk = data[begin : begin + _CHUNK_BYTES]
                begin += os.pwrite(descriptor, chunk, _DATA_OFFSET + begin)
            checksum = _CHECKSUM.pack(plan.weights_checksum())
            os.pwrite(descriptor, self._header(plan, names) + checksum, 0)
            # Else a crash of the machine could leave the name with the data missing.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, plan: Plan, names: Sequence[str]) -> Path:
        # By place and layouts, not by content: a model that has changed replaces its old file.
        facts = (self.identity.paths, [place[2] for place in plan.matrix_places()], list(names))
        return self.directory / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.packed"

    def _header(self, plan: Plan, names: Sequence[str]) -> bytes:
        places = list(zip(names, plan.matrix_places(), strict=True))
        facts = (LAYOUTS_VERSION, sys.byteorder, self.identity.digest, places)
        digest = hashlib.sha256(repr(facts).encode()).digest()
        return _HEADER.pack(_MAGIC, _VERSION, plan.weight_bytes, digest)


def _is_private(status: os.stat_result) -> bool:
    """Whether nobody else can have written it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
