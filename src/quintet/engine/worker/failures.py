"""Errors as data: what failed in the worker is raised in its client as the same class."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from quintet import errors

Detail: TypeAlias = str | int | float | tuple[str, ...] | None

_CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.QuintetError)
}


class Failure(msgspec.Struct, frozen=True):
    """
    An error.

    Args:
        kind: the name of its class in `quintet.errors`.
        message: its text.
        details: its attributes.
    """

    kind: str
    message: str
    details: dict[str, Detail]

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """An error as data; one that is none of ours becomes an EngineError that names it."""
        if type(error).__name__ in _CLASSES:
            return cls(type(error).__name__, str(error), dict(vars(error)))
        return cls("EngineError", f"{type(error).__name__}: {error}", {})

    def error(self) -> errors.QuintetError:
        """The error again; of an unknown kind, an EngineError."""
        # Not through the constructor: some build their text from their arguments.
        kind = _CLASSES.get(self.kind, errors.EngineError)
        error = kind.__new__(kind, self.message)
        vars(error).update(self.details)
        return error
