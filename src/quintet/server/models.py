"""The models a server holds: loaded when first asked for, let go when idle or in the way.

One task loads a model however many requests ask for it.  Only a model that nobody uses is
unloaded: when its time has come, or, the least recently used first, to make room for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from quintet.errors import CapacityError, EngineError, ModelNotFoundError
from quintet.hub.manifest import Manifest
from quintet.server.catalog import Catalog, ServedModels, local_manifest
from quintet.server.disconnect import cancel
from quintet.server.engines import ServedEngine
from quintet.server.exchange import using
from quintet.server.served_model import ServedModel

_log = logging.getLogger(__name__)

Loader: TypeAlias = Callable[[Manifest], Awaitable[ServedEngine]]

FOREVER_S = math.inf
_TICK_S = 0.5
_ROOM_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """When models come and go.

    Args:
        keep_alive_s: how long a model stays after its last request, unless that says otherwise.
        max_loaded: models in memory at a time.
        max_bytes: memory of all loaded models together; None: no limit but the system's.
        request_timeout_s: the longest a request may take, from its arrival to its end, whatever
            it asks for; None: as long as it takes.
        queue_timeout_s: the longest it may wait for its turn; None: as long as it takes.
    """

    keep_alive_s: float = 300.0
    max_loaded: int = 3
    max_bytes: int | None = None
    request_timeout_s: float | None = None
    queue_timeout_s: float | None = None


class Models:
    """Models by name.  All methods belong to the event loop.

    Args:
        catalog: what may be loaded.
        load: makes the engine of a model; its errors reach those who asked for the model.
        policy: when models come and go.
    """

    def __init__(self, catalog: Catalog, load: Loader, policy: LoadPolicy | None = None) -> None:
        self.catalog = catalog
        self.policy = policy or LoadPolicy()
        self._load = load
        self._loaded: dict[str, ServedModel] = {}
        self._loading: dict[str, asyncio.Task[ServedModel]] = {}
        self._room = asyncio.Lock()  # one model at a time makes room and takes it
        self._is_closed = False

    @classmethod
    def of(cls, engines: Mapping[str, ServedEngine]) -> Models:
        """These engines, loaded already and held for ever."""

        async def load(manifest: Manifest) -> ServedEngine:
            raise ModelNotFoundError(f"model {manifest.name!r} is not loaded")

        models = cls(ServedModels(local_manifest(name, Path(name)) for name in engines), load)
        for name, engine in engines.items():
            models._add(models.catalog.get(name), engine, FOREVER_S)
        return models

    def __iter__(self) -> Iterator[ServedModel]:
        """The loaded models, in the order they were loaded."""
        return iter(tuple(self._loaded.values()))

    def find(self, name: str) -> Manifest:
        """The model of that name, loaded or not.

        Raises:
            ModelNotFoundError: there is none.
        """
        return self.catalog.get(name)

    def loaded(self, name: str) -> ServedModel | None:
        """The model of that name if it is in memory.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        return self._loaded.get(self.find(name).name)

    @contextlib.asynccontextmanager
    async def use(self, name: str, keep_alive_s: float | None = None) -> AsyncIterator[ServedModel]:
        """Hold a model, loading it first if need be; it stays in memory until the block ends.

        Args:
            name: as clients call it.
            keep_alive_s: how long it stays after that; 0 lets it go at once, infinity never,
                None as the policy says or as it was held before.

        Raises:
            ModelNotFoundError: there is no such model.
            CapacityError: there is no room: other models are in use.
            QuintetError: it could not be loaded.
        """
        model = await self._acquire(self.find(name))
        if keep_alive_s is not None:
            model.keep_alive_s = keep_alive_s
        try:
            with using(model.name):
                yield model
        finally:
            model.num_users -= 1
            model.last_used_s = time.monotonic()
            if model.keep_alive_s <= 0 and not model.num_users:
                await asyncio.shield(self._unload(model))

    async def load(self, name: str, keep_alive_s: float | None = None) -> None:
        """Have a model in memory; see `use`."""
        async with self.use(name, keep_alive_s):
            pass

    async def unload(self, name: str) -> bool:
        """Let a model go, once those who use it have done so; whether it was in memory.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        model = self.loaded(name)
        if model is None:
            return False
        model.keep_alive_s = 0.0
        if not model.num_users:
            await asyncio.shield(self._unload(model))
        return True

    async def watch(self) -> None:
        """For ever: let models go whose time has come."""
        while True:
            await asyncio.sleep(_TICK_S)
            for model in self:
                if not model.num_users and time.monotonic() >= model.expires_at_s:
                    await self._unload(model)

    async def close(self) -> None:
        """Let all models go, which ends what is running with EngineError.  Idempotent."""
        self._is_closed = True
        await cancel(*self._loading.values())
        await asyncio.gather(*(model.engine.close() for model in self))

    async def _acquire(self, manifest: Manifest) -> ServedModel:
        while True:
            model = self._loaded.get(manifest.name)
            if model is not None and not model.is_leaving:
                model.num_users += 1
                return model
            if self._is_closed:
                raise EngineError("the server is shutting down")
            task = self._loading.get(manifest.name)
            if task is None:
                task = asyncio.ensure_future(self._bring(manifest))
                self._loading[manifest.name] = task
                task.add_done_callback(lambda done: self._settle(manifest.name, done))
            # Shielded: whoever leaves must not take the model from the others who wait.
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise
                raise EngineError("the server is shutting down") from None

    async def _bring(self, manifest: Manifest) -> ServedModel:
        async with self._room:
            leaving = self._loaded.get(manifest.name)
            if leaving is not None:
                await self._unload(leaving)
            await self._make_room(manifest)
            started_s = time.monotonic()
            engine = await self._load(manifest)
            if self._is_closed:
                await engine.close()
                raise EngineError("the server is shutting down")
            model = self._add(manifest, engine, self.policy.keep_alive_s)
            model.load_s = model.last_used_s - started_s
            return model

    async def _make_room(self, manifest: Manifest) -> None:
        """Let idle models go, the least recently used first, until this one fits."""
        while not self._fits(manifest):
            idle = [model for model in self if not model.num_users]
            if not idle:
                names = ", ".join(model.name for model in self)
                raise CapacityError(
                    f"no room for model {manifest.name!r}: in use are {names}",
                    resource="memory for models",
                    retry_after_s=_ROOM_RETRY_S,
                )
            await self._unload(min(idle, key=lambda model: model.last_used_s))

    def _fits(self, manifest: Manifest) -> bool:
        if not self._loaded:
            return True  # alone it may try: the loader knows better what fits
        if len(self._loaded) >= self.policy.max_loaded:
            return False
        used = sum(model.num_bytes for model in self)
        return self.policy.max_bytes is None or used + manifest.size_bytes <= self.policy.max_bytes

    def _add(self, manifest: Manifest, engine: ServedEngine, keep_alive_s: float) -> ServedModel:
        model = ServedModel(
            manifest,
            engine,
            int(time.time()),
            keep_alive_s=keep_alive_s,
            request_timeout_s=self.policy.request_timeout_s,
            queue_timeout_s=self.policy.queue_timeout_s,
        )
        self._loaded[manifest.name] = model
        return model

    def _settle(self, name: str, done: asyncio.Task[ServedModel]) -> None:
        self._loading.pop(name, None)
        if not done.cancelled():
            done.exception()  # told to those who wait, if any are left

    async def _unload(self, model: ServedModel) -> None:
        if model.is_leaving:
            return
        model.is_leaving = True
        try:
            await model.engine.close()
        except Exception:  # noqa: BLE001 - it is gone either way
            _log.exception("model %s did not close", model.name)
        finally:
            if self._loaded.get(model.name) is model:
                del self._loaded[model.name]
