"""The models a server holds, by the names clients call them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from quintet.errors import ModelNotFoundError
from quintet.server.engines import ServedEngine


class Models:
    """Loaded models by name.

    Args:
        engines: one loaded model per name.
    """

    def __init__(self, engines: Mapping[str, ServedEngine]) -> None:
        self._engines = dict(engines)
        self._loaded_at = int(time.time())

    def get(self, name: str) -> ServedEngine:
        """The model of that name.

        Raises:
            ModelNotFoundError: it is not loaded; lists those that are.
        """
        engine = self._engines.get(name)
        if engine is None:
            loaded = ", ".join(self._engines)
            raise ModelNotFoundError(f"model {name[:100]!r} is not loaded; loaded: {loaded}")
        return engine

    def names(self) -> list[str]:
        """All names, in the order they were loaded."""
        return list(self._engines)

    def items(self) -> list[tuple[str, ServedEngine]]:
        """All names and models."""
        return list(self._engines.items())

    def loaded_at(self, name: str) -> int:
        """When a model was loaded, in seconds since 1970."""
        return self._loaded_at
