"""The helpers of one kind of work: started when needed, shared by threads, replaced when killed."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Final

from quintet import errors
from quintet.errors import CapacityError, EngineError, QuintetError
from quintet.sandbox.frames import Ended, Late
from quintet.sandbox.helper import Helper, Limits

MAX_WAITING: Final = 4
_LONG_S: Final = 1.0  # hundreds of times what honest work takes

_CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, QuintetError)
}


class Refused(Exception):  # noqa: N818 - what it means is for the caller to say
    """The work cannot be done within the limits.

    Args:
        reason: to be put after the name of what was worked on.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Pool:
    """
    Up to `size` helpers.  Safe to use from several threads; a call waits for its answer.

    Args:
        module: what they run; see `Helper`.
        setup: handed to each before its first task.
        limits: of each task.
        size: the most processes at a time.
    """

    def __init__(
        self, module: str, setup: Any, limits: Limits | None = None, *, size: int = 2
    ) -> None:
        self._module = module
        self._setup = setup
        self._limits = limits or Limits()
        self._size = size
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._idle: list[Helper] = []
        self._busy: dict[Helper, float] = {}  # since when, on `time.monotonic`'s clock
        self._num_starting = 0
        self._num_waiting = 0
        self._is_closed = False

    def run(self, task: Any) -> Any:
        """What a helper makes of a task.

        Raises:
            Refused: it took too long or too much memory, or it fails in a way that is its own.
            QuintetError: what the helper raised.
            CapacityError: all helpers are busy with long work, and others wait already.
            EngineError: no helper can be started, or the pool is closed.
        """
        helper = self._take()
        is_well = False
        try:
            kind, value = helper.run(task)
            is_well = True
        except Late:
            raise Refused(f"takes longer than {self._limits.seconds:g} s") from None
        except Ended:
            with self._changed:
                if self._is_closed:
                    raise EngineError("the helper processes were closed") from None
            mib = self._limits.memory_bytes // 2**20
            raise Refused(f"takes more than {mib} MiB of memory, or crashes") from None
        finally:
            self._give_back(helper, is_well)
        if kind == "done":
            return value
        if kind == "refused":
            raise _error(*value)
        raise Refused(str(value)[:300])

    def start(self) -> None:
        """Start a helper in the background, so that the first task need not wait for it."""

        def start() -> None:
            with contextlib.suppress(QuintetError):  # the first task will meet the same
                self._give_back(self._take(), is_well=True)

        threading.Thread(target=start, name="quintet-helper-start", daemon=True).start()

    def close(self) -> None:
        """End all helpers; who waits for one gets EngineError.  Idempotent."""
        with self._changed:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for helper in self._busy:
                helper.kill()  # whoever reads from it closes it
            self._changed.notify_all()
        for helper in idle:
            helper.close()

    def _take(self) -> Helper:
        give_up_s = time.monotonic() + self._limits.seconds
        with self._changed:
            while True:
                if self._is_closed:
                    raise EngineError("the helper processes were closed")
                if self._idle:
                    return self._note(self._idle.pop())
                if len(self._busy) + self._num_starting < self._size:
                    self._num_starting += 1
                    break
                self._wait(give_up_s)
        helper = None
        try:
            helper = Helper(self._module, self._setup, self._limits)
        finally:
            with self._changed:
                self._num_starting -= 1
                if helper is not None and not self._is_closed:
                    self._note(helper)
                self._changed.notify()
        with self._changed:
            if helper in self._busy:
                return helper
        helper.close()
        raise EngineError("the helper processes were closed")

    def _note(self, helper: Helper) -> Helper:
        self._busy[helper] = time.monotonic()
        return helper

    def _wait(self, give_up_s: float) -> None:
        """Until something changes.  A few may wait behind long work, not everybody: each that
        waits holds a thread."""
        now_s = time.monotonic()
        is_long = any(now_s - since_s >= _LONG_S for since_s in self._busy.values())
        if now_s >= give_up_s or (is_long and self._num_waiting >= MAX_WAITING):
            raise CapacityError(
                "the helper processes are busy", resource="helper process", retry_after_s=1.0
            )
        self._num_waiting += 1
        try:
            self._changed.wait(min(_LONG_S, give_up_s - now_s))
        finally:
            self._num_waiting -= 1

    def _give_back(self, helper: Helper, is_well: bool) -> None:
        with self._changed:
            del self._busy[helper]
            is_kept = is_well and not self._is_closed
            if is_kept:
                self._idle.append(helper)
            self._changed.notify()
        if not is_kept:
            helper.close()


def _error(kind: str, message: str, details: dict[str, Any]) -> QuintetError:
    """The error again; not by its constructor, which may build its text from its arguments."""
    error_class = _CLASSES.get(kind, EngineError)
    error = error_class.__new__(error_class, message)
    vars(error).update(details)
    return error
