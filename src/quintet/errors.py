"""Every error Quintet raises on purpose.

    QuintetError
    ├── ModelFormatError        the file is wrong: path, part, byte offset, expected and found
    ├── UnsupportedModelError   well-formed, not ours yet: names it, lists what is supported
    ├── ModelNotFoundError      no such model name or path
    ├── RequestError            the caller's fault: carries the parameter
    │   └── ContextLengthError  carries the limit and the count
    ├── CapacityError           ours and temporary: carries what ran out
    ├── DownloadError           another host's: unreachable, or it sends what it should not
    └── EngineError             ours: a step failed or the engine is closed

Imports nothing of ours.  Nothing here knows HTTP: each dialect maps these
classes to its own status codes in one table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


class QuintetError(Exception):
    """Base of all errors raised on purpose; its text is safe to show to a user."""


class ModelFormatError(QuintetError):
    """A model file breaks its format.

    Args:
        message: what was expected and what was found.
        path: the file, when known.
        part: the metadata key, tensor name or structure being read.
        offset: where it was found, in bytes from the start of the file.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        part: str | None = None,
        offset: int | None = None,
    ) -> None:
        self.path = None if path is None else os.fspath(path)
        self.part = part
        self.offset = offset
        where = [] if self.path is None else [self.path]
        if part is not None:
            where.append(part)
        if offset is not None:
            where.append(f"at byte {offset}")
        super().__init__(f"{', '.join(where)}: {message}" if where else message)


class UnsupportedModelError(QuintetError):
    """A well-formed model that needs something Quintet does not have.

    Args:
        what: the kind of thing, e.g. "architecture".
        name: the one the model asks for.
        supported: the ones there are.
    """

    def __init__(self, what: str, name: str, supported: Iterable[str] = ()) -> None:
        self.what = what
        self.name = name
        self.supported = tuple(sorted(supported))
        known = f"; supported: {', '.join(self.supported)}" if self.supported else ""
        super().__init__(f"unsupported {what} {name!r}{known}")


class ModelNotFoundError(QuintetError):
    """A model name or path that leads to no model."""


class RequestError(QuintetError):
    """The caller's request cannot be served as it stands.

    Args:
        message: what was expected and what was found.
        parameter: the request field at fault, e.g. "temperature".
    """

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        self.parameter = parameter
        super().__init__(message if parameter is None else f"{parameter}: {message}")


class ContextLengthError(RequestError):
    """A prompt, or prompt plus requested tokens, longer than the context.

    Args:
        num_tokens: tokens the request needs.
        max_tokens: tokens the context holds.
    """

    def __init__(self, num_tokens: int, max_tokens: int, *, parameter: str = "prompt") -> None:
        self.num_tokens = num_tokens
        self.max_tokens = max_tokens
        super().__init__(
            f"needs {num_tokens} tokens, the context holds {max_tokens}", parameter=parameter
        )


class CapacityError(QuintetError):
    """Out of room for now; the same request may succeed later.

    Args:
        resource: what ran out, e.g. "request queue".
        retry_after_s: a hint in seconds, when there is one.
    """

    def __init__(self, message: str, *, resource: str, retry_after_s: float | None = None) -> None:
        self.resource = resource
        self.retry_after_s = retry_after_s
        super().__init__(message)


class DownloadError(QuintetError):
    """A host that files come from cannot be reached, refuses, or sends what it should not."""


class EngineError(QuintetError):
    """The engine could not finish a request: a failed step, a numerical fault, or a shutdown."""
