"""The errors of this interface, and which of Quintet's each one stands for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from quintet import CapacityError, EngineError, QuintetError, RequestError


class NanoQwen3ServingError(Exception):
    """Base of all errors of this package."""


class ModelLoadError(NanoQwen3ServingError):
    """The model is not there, cannot be read, or does not fit."""


class GenerationError(NanoQwen3ServingError):
    """A request failed, or the model is shut down."""


class QueueFullError(NanoQwen3ServingError):
    """More requests than `max_queue_size`, or than the engine has room for."""


class InvalidParametersError(NanoQwen3ServingError, ValueError):
    """A parameter or prompt that cannot be served as it stands."""


@contextlib.contextmanager
def load_errors() -> Iterator[None]:
    """While a model is loaded."""
    try:
        yield
    except RequestError as error:
        raise InvalidParametersError(str(error)) from error
    except QuintetError as error:
        raise ModelLoadError(str(error)) from error


@contextlib.contextmanager
def request_errors() -> Iterator[None]:
    """While a request is made and served."""
    try:
        yield
    except RequestError as error:
        raise InvalidParametersError(str(error)) from error
    except CapacityError as error:
        raise QueueFullError(str(error)) from error
    except EngineError as error:
        raise GenerationError(str(error)) from error
