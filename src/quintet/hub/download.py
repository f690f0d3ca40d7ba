"""One file from one address, resumed until it is whole.

A download goes on where the bytes on the disk end: the file is named after the sha256 that its
content will have, so what is there is the beginning of the same content or will be found out by
the hash.  Between tries of one run, `If-Range` with the entity tag spares even that detour.

Source: RFC 9110, sections 13.1.5 (If-Range), 14 (ranges) and 15.3.7 (206).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from quintet.errors import DownloadError
from quintet.hub import files
from quintet.hub.transport import Answer, HubUnreachable, TransferInterrupted, Transport

_Answer = TypeVar("_Answer")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})")


@dataclass(frozen=True)
class Retries:
    """
    How often to try again, and how long to wait before.

    Args:
        max_failures: tries in a row that bring nothing new.
        first_delay_s: before the second try; doubled for each further one.
        max_delay_s: between tries, unless the host asks for more.
        retries_connects: also where no connection came about.
        sleep: waits.
    """

    max_failures: int = 6
    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    retries_connects: bool = True
    sleep: Callable[[float], None] = time.sleep

    def call(self, ask: Callable[[], _Answer]) -> _Answer:
        """
        The answer to a question that may have to be asked again.

        Raises:
            DownloadError: it was interrupted each time, or there was no connection and that is
                not tried again.
        """
        num_failures = 0
        while True:
            try:
                return ask()
            except TransferInterrupted as error:  # noqa: PERF203 - retrying is the loop
                if isinstance(error, HubUnreachable) and not self.retries_connects:
                    raise DownloadError(str(error)) from error
                num_failures += 1
                if num_failures > self.max_failures:
                    raise DownloadError(f"{error}; gave up after {num_failures} tries") from error
                self.wait(num_failures, error.retry_after_s)

    def wait(self, num_failures: int, asked_s: float) -> None:
        """Wait before the next try."""
        delay = min(self.max_delay_s, self.first_delay_s * 2.0 ** (num_failures - 1))
        self.sleep(max(delay, asked_s))


PATIENT = Retries()


def download(
    transport: Transport, url: str, path: Path, num_bytes: int, retries: Retries
) -> Generator[int, None, None]:
    """
    Complete `path` to the content of `url`; yields how many bytes are there, as they come.

    What the file holds already is taken for the beginning of the content.  Closing the
    generator stops the transfer; the file keeps what has come.

    Args:
        num_bytes: of the whole content.

    Raises:
        DownloadError: the host does not deliver: not after all retries, or not that content.
        CapacityError: the disk is full.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", 0) as file:
        transfer = _Transfer(transport, url, file.fileno(), path, num_bytes)
        best, num_failures = transfer.position, 0
        yield transfer.position
        while transfer.position < num_bytes:
            try:
                yield from transfer.attempt()
            except TransferInterrupted as error:  # noqa: PERF203 - retrying is the loop
                # A host that starts from the beginning each time brings nothing new.
                num_failures = 1 if transfer.position > best else num_failures + 1
                best = max(best, transfer.position)
                if num_failures > retries.max_failures:
                    raise DownloadError(
                        f"{error}; gave up after {num_failures} tries, with "
                        f"{transfer.position:,} of {num_bytes:,} bytes"
                    ) from error
                retries.wait(num_failures, error.retry_after_s)


class _Transfer:
    """The state that outlives a try: how far the file has come, and which version it is of."""

    def __init__(
        self, transport: Transport, url: str, descriptor: int, path: Path, num_bytes: int
    ) -> None:
        self._transport = transport
        self._url = url
        self._descriptor = descriptor
        self._path = path
        self._num_bytes = num_bytes
        self._tag: str | None = None
        self.position = os.fstat(descriptor).st_size
        if self.position > num_bytes:
            self._restart()

    def attempt(self) -> Iterator[int]:
        """Transfer until the end or the next interruption."""
        headers = {}
        if self.position:
            headers["Range"] = f"bytes={self.position}-"
            if self._tag is not None:
                headers["If-Range"] = self._tag
        with self._transport.open(self._url, headers) as answer:
            self._place(answer)
            for chunk in answer.body():
                if self.position + len(chunk) > self._num_bytes:
                    self._restart()
                    raise DownloadError(
                        f"{answer.host}: expected {self._num_bytes:,} bytes, found more"
                    )
                self._write(chunk)
                yield self.position
            if self.position < self._num_bytes:
                raise TransferInterrupted(f"{answer.host}: the body ended early")

    def _place(self, answer: Answer) -> None:
        """Find out which bytes the answer has, and make them the ones to come."""
        status, headers = answer.status, answer.headers
        tag = headers.get("etag", "")
        changed = self._tag is not None and tag != self._tag
        self._tag = tag if tag.startswith('"') else None  # a weak one proves nothing
        if status == 206:
            found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
            expected = (self.position, self._num_bytes - 1, self._num_bytes)
            if changed or found is None or tuple(map(int, found.groups())) != expected:
                self._restart()
                raise TransferInterrupted(
                    f"{answer.host}: expected bytes {expected[0]}-{expected[1]}/{expected[2]}"
                    f", found {headers.get('content-range', 'no range')!r:.80}"
                )
            return
        position, length = self.position, headers.get("content-length", "")
        if position:
            self._restart()
        if status == 416:
            raise TransferInterrupted(f"{answer.host}: no bytes from {position:,} on")
        if length.isascii() and length.isdigit() and int(length) != self._num_bytes:
            raise DownloadError(
                f"{answer.host}: expected {self._num_bytes:,} bytes, found {length:.20}"
            )

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        with files.full_disk_said(self._path.parent, self._num_bytes):
            while view:
                num_written = os.pwrite(self._descriptor, view, self.position)
                self.position += num_written
                view = view[num_written:]

    def _restart(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self.position = 0
