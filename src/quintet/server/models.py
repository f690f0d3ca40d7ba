"""The models a server holds, by the names clients call them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from quintet.errors import ModelNotFoundError
from quintet.server.engines import ServedEngine, ServedModel


class Models:
    """Loaded models by name.

    Args:
        engines: one loaded model per name.
    """

    def __init__(self, engines: Mapping[str, ServedEngine]) -> None:
        now = int(time.time())
        self._models = {name: ServedModel(name, engine, now) for name, engine in engines.items()}

    def __iter__(self) -> Iterator[ServedModel]:
        """All models, in the order they were loaded."""
        return iter(self._models.values())

    def get(self, name: str) -> ServedModel:
        """The model of that name.

        Raises:
            ModelNotFoundError: it is not loaded; lists those that are.
        """
        model = self._models.get(name)
        if model is None:
            loaded = ", ".join(self._models)
            raise ModelNotFoundError(f"model {name[:100]!r} is not loaded; loaded: {loaded}")
        return model
