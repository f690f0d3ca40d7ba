"""Woolly's errors, each with the code and the HTTP status that its server gives it.

Source: Woolly, "API Reference", "Error Handling".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import ClassVar

from quintet.errors import (
    CapacityError,
    ContextLengthError,
    EngineError,
    ModelFormatError,
    ModelNotFoundError,
    QuintetError,
    RequestError,
    UnsupportedModelError,
)


class WoollyError(Exception):
    """Base of all errors.

    Attributes:
        code: of the server's answers.
        status: its HTTP status.
        prefix: what its text begins with.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    prefix: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.prefix + super().__str__()


Error = WoollyError
"""As the Rust API calls it."""


class ModelNotFound(WoollyError):  # noqa: N818 - Woolly's name, as are those below
    """There is no such model."""

    code, status, prefix = "MODEL_NOT_FOUND", 404, "Model not found: "


class ModelNotLoaded(WoollyError):  # noqa: N818
    """No model is loaded."""

    code, status = "MODEL_NOT_LOADED", 400


class ModelLoadFailed(WoollyError):  # noqa: N818
    """A model's file is broken, or not one that can be run."""

    code, status, prefix = "MODEL_LOAD_FAILED", 500, "Model load failed: "


class InvalidRequest(WoollyError):  # noqa: N818
    """A parameter that cannot be used."""

    code, status = "INVALID_REQUEST", 400


class GenerationFailed(WoollyError):  # noqa: N818
    """The engine could not finish."""

    code, status = "GENERATION_FAILED", 500


class OutOfMemory(WoollyError):  # noqa: N818
    """Not enough memory.

    Args:
        needed, available: bytes, where they are known.
    """

    code, status, prefix = "OUT_OF_MEMORY", 507, "Out of memory: "

    def __init__(
        self, message: str = "", *, needed: int | None = None, available: int | None = None
    ) -> None:
        self.needed = needed
        self.available = available
        super().__init__(message or f"need {needed} bytes, available {available}")


class GpuError(WoollyError):
    """A GPU operation failed; Quintet computes on the CPU and never raises it."""

    code, status, prefix = "GPU_ERROR", 500, "GPU error: "


class TokenizerError(WoollyError):
    """A text or a vocabulary that cannot be tokenized."""

    code, status = "TOKENIZER_ERROR", 500


class RateLimited(WoollyError):  # noqa: N818
    """Too many requests; the server's answer."""

    code, status = "RATE_LIMITED", 429


class Unauthorized(WoollyError):  # noqa: N818
    """A key that is missing or wrong; the server's answer."""

    code, status = "UNAUTHORIZED", 401


class InternalError(WoollyError):
    """Something unexpected."""


def from_quintet(error: QuintetError) -> WoollyError:
    """The error as Woolly has it."""
    text = str(error)
    if isinstance(error, ModelNotFoundError):
        return ModelNotFound(text)
    if isinstance(error, (ModelFormatError, UnsupportedModelError)):
        return ModelLoadFailed(text)
    if isinstance(error, CapacityError) and any(w in error.resource for w in ("memory", "cache")):
        needed = _number(r"(\d+) bytes", text)
        available = _number(r"(?:found |bytes, )(\d+)", text)
        return OutOfMemory(text, needed=needed, available=available)
    if isinstance(error, (RequestError, ContextLengthError)):
        return InvalidRequest(text)
    return GenerationFailed(text) if isinstance(error, EngineError) else InternalError(text)


def _number(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text)
    return None if match is None else int(match[1])


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Quintet's errors inside become Woolly's."""
    try:
        yield
    except QuintetError as error:
        raise from_quintet(error) from error
