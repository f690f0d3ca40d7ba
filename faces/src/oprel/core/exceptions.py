"""Oprel's errors, and what Quintet's become.

OprelError
├── ModelNotFoundError   no such model, here or in a repository
├── MemoryError          not enough; also Python's own MemoryError
├── BackendError         the engine or the server failed, or cannot be reached
├── DownloadError        a model could not be downloaded
└── ValidationError      a wrong parameter or configuration; also a ValueError
"""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator

from quintet.errors import CapacityError, QuintetError, RequestError
from quintet.errors import DownloadError as QuintetDownloadError
from quintet.errors import ModelNotFoundError as QuintetModelNotFoundError


class OprelError(Exception):
    """Base of all errors.

    Args:
        error: what went wrong.
        status_code: of the HTTP answer that said so; -1 where there was none.
    """

    def __init__(self, error: str = "", status_code: int = -1) -> None:
        self.error = error
        self.status_code = status_code
        super().__init__(error)


class ModelNotFoundError(OprelError):
    """There is no such model file, name or alias."""


class MemoryError(OprelError, builtins.MemoryError):
    """The model does not fit into the memory there is or that it may take."""


class BackendError(OprelError):
    """The engine or the server failed, or nobody answers."""


class DownloadError(OprelError):
    """A model could not be downloaded."""


class ValidationError(OprelError, ValueError):
    """A parameter or a configuration that cannot be used."""


ResponseError = OprelError
"""What Ollama's client calls the errors of a server; they have `error` and `status_code`."""


def from_quintet(error: QuintetError) -> OprelError:
    """The error as Oprel has it."""
    text = str(error)
    if isinstance(error, QuintetModelNotFoundError):
        return ModelNotFoundError(text)
    if isinstance(error, QuintetDownloadError):
        return DownloadError(text)
    if isinstance(error, CapacityError):
        return MemoryError(text) if is_memory(error.resource) else BackendError(text)
    return ValidationError(text) if isinstance(error, RequestError) else BackendError(text)


def is_memory(text: str) -> bool:
    """Whether what ran out is memory."""
    return any(word in text for word in ("memory", "KV cache"))


def from_status(status: int, text: str) -> OprelError:
    """The error of an HTTP answer."""
    if status == 404:
        return ModelNotFoundError(text, status)
    if (status in (503, 507) and is_memory(text)) or "max_memory: " in text:
        return MemoryError(text, status)
    if status in (400, 413, 422):
        return ValidationError(text, status)
    return DownloadError(text, status) if status == 502 else BackendError(text, status)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Quintet's errors inside become Oprel's."""
    try:
        yield
    except QuintetError as error:
        raise from_quintet(error) from error
