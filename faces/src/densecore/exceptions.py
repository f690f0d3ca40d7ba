"""The errors of this interface, and which of Quintet's each one stands for."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator

from quintet import ContextLengthError, QuintetError, RequestError

__all__ = [
    "DenseCoreError",
    "InferenceError",
    "InvalidConfigError",
    "ModelLoadError",
    "TimeoutError",
]


class DenseCoreError(Exception):
    """Base of all errors of this package."""


class ModelLoadError(DenseCoreError):
    """The model is not there, cannot be read, or does not fit."""


class InferenceError(DenseCoreError):
    """A request failed, does not fit into the context, or the model is closed."""


class InvalidConfigError(DenseCoreError, ValueError):
    """A parameter that cannot be served as it stands."""


class TimeoutError(DenseCoreError, builtins.TimeoutError):
    """A request took longer than it may."""


@contextlib.contextmanager
def load_errors() -> Iterator[None]:
    """While a model is found, loaded or written."""
    try:
        yield
    except RequestError as error:
        raise InvalidConfigError(str(error)) from error
    except (QuintetError, OSError) as error:
        raise ModelLoadError(str(error)) from error


@contextlib.contextmanager
def request_errors() -> Iterator[None]:
    """While a request is made and served."""
    try:
        yield
    except ContextLengthError as error:
        raise InferenceError(str(error)) from error
    except RequestError as error:
        raise InvalidConfigError(str(error)) from error
    except QuintetError as error:
        raise InferenceError(str(error)) from error
