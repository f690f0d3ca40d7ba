"""The current model: Woolly's requests need not name one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from quintet.errors import QuintetError
from quintet.server.bodies import KeepAlive
from quintet.server.dialects.woolly.errors import not_loaded, translated
from quintet.server.keep_alive import keep_alive_s
from quintet.server.models import FOREVER_S, Models
from quintet.server.served_model import ServedModel


class CurrentModel:
    """Which model is meant where none is named: the one loaded last, as long as it is loaded.

    Args:
        models: those there are.
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        self._name: str | None = None

    @property
    def name(self) -> str | None:
        """Its name; None while there is none."""
        loaded = [model.name for model in self._models]
        if self._name in loaded:
            return self._name
        return loaded[-1] if loaded else None

    @contextlib.asynccontextmanager
    async def use(
        self, name: str | None, keep_alive: KeepAlive | None = None
    ) -> AsyncIterator[ServedModel]:
        """Hold the model named, or the current one.

        Args:
            name: None means the current one.
            keep_alive: how long it stays after that, as requests say it.

        Raises:
            HTTPRefusal: there is no such model, none is loaded, or memory is short.
            QuintetError: it could not be loaded.
        """
        wanted = name or self.name
        if wanted is None:
            raise not_loaded()
        keep_s = keep_alive_s(keep_alive)
        async with contextlib.AsyncExitStack() as stack:
            try:
                model = await stack.enter_async_context(self._models.use(wanted, keep_s))
            except QuintetError as error:
                raise translated(error, wanted, self._models) from error
            yield model

    async def load(self, name: str) -> None:
        """Have a model in memory until it is unloaded, as the current one.

        Raises: as `use`.
        """
        try:
            await self._models.load(name, FOREVER_S)
            self._name = self._models.find(name).name
        except QuintetError as error:
            raise translated(error, name, self._models) from error

    async def unload(self, name: str | None) -> str:
        """Let the model named, or the current one, go; its name.

        Raises:
            HTTPRefusal: there is none.
        """
        wanted = name or self.name
        if wanted is None:
            raise not_loaded()
        try:
            if not await self._models.unload(wanted):
                raise not_loaded()
        except QuintetError as error:
            raise translated(error, wanted, self._models) from error
        return wanted
