"""Models come when asked for and go when idle or in the way; none is taken from its users."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quintet.errors import CapacityError, EngineError, ModelFormatError, ModelNotFoundError
from quintet.hub.manifest import Manifest
from quintet.server.catalog import ServedModels, local_manifest
from quintet.server.models import LoadPolicy, Models

from .fake import FakeEngine
from .harness import run, until


class Loads:
    """A loader that counts, and makes a slow or a failing load on request."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.engines: dict[str, FakeEngine] = {}
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self, manifest: Manifest) -> FakeEngine:
        self.names.append(manifest.name)
        await asyncio.sleep(0.01)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.engines[manifest.name] = FakeEngine()
        return self.engines[manifest.name]


def models(loads: Loads, *names: str, **policy: float) -> Models:
    catalog = ServedModels(local_manifest(name, Path("/nowhere")) for name in names)
    return Models(catalog, loads, LoadPolicy(**policy))


def test_many_who_ask_share_one_load():
    """The model is loaded once, and a tag "latest" is the same model."""

    async def main() -> None:
        loads = Loads()
        served = models(loads, "a")

        async def ask(name: str) -> FakeEngine:
            async with served.use(name) as model:
                await asyncio.sleep(0.01)
                return model.engine

        engines = await asyncio.gather(*(ask("a" if i % 2 else "a:latest") for i in range(10)))
        assert len({id(engine) for engine in engines}) == 1
        assert loads.names == ["a"]
        assert [model.num_users for model in served] == [0]

    run(main())


def test_who_leaves_while_it_loads_takes_it_from_nobody():
    """A cancelled request neither ends the load nor counts as a user."""

    async def main() -> None:
        loads = Loads()
        served = models(loads, "a")
        first = asyncio.ensure_future(served.load("a"))
        second = asyncio.ensure_future(served.load("a"))
        await until(lambda: bool(loads.names))
        first.cancel()
        await second
        assert loads.names == ["a"]
        assert [model.num_users for model in served] == [0]

    run(main())


def test_the_least_recently_used_idle_model_makes_room():
    """A model in use stays; with all in use the newcomer is refused, and may come later."""

    async def main() -> None:
        loads = Loads()
        served = models(loads, "a", "b", "c", max_loaded=2)
        await served.load("a")
        await served.load("b")
        await served.load("a")
        await served.load("c")
        assert [model.name for model in served] == ["a", "c"]
        assert loads.engines["b"].is_closed
        async with served.use("a"):
            await served.load("b")
            assert [model.name for model in served] == ["a", "b"]
            async with served.use("b"):
                with pytest.raises(CapacityError, match="a, b"):
                    await served.load("c")
            await served.load("c")
        assert [model.name for model in served] == ["a", "c"]

    run(main())


def test_memory_is_a_limit():
    """What is loaded and what comes must fit together; one alone may always try."""

    async def main() -> None:
        loads = Loads()
        catalog = ServedModels(local_manifest(name, Path(__file__)) for name in "ab")
        served = Models(catalog, loads, LoadPolicy(max_bytes=Path(__file__).stat().st_size + 1))
        await served.load("a")
        await served.load("b")
        assert [model.name for model in served] == ["b"]

    run(main())


def test_keep_alive():
    """0 lets a model go with its last user, a short time soon after, unload when idle."""

    async def main() -> None:
        loads = Loads()
        served = models(loads, "a", "b")
        async with served.use("a"):
            async with served.use("a", keep_alive_s=0.0):
                pass
            assert not loads.engines["a"].is_closed
        assert loads.engines["a"].is_closed
        assert list(served) == []

        watch = asyncio.ensure_future(served.watch())
        await served.load("b", keep_alive_s=0.05)
        await until(lambda: loads.engines["b"].is_closed)
        assert list(served) == []
        watch.cancel()

        await served.load("a")
        assert await served.unload("a")
        assert not await served.unload("a")
        assert list(served) == []

    run(main())


def test_a_failed_load_is_told_and_tried_again():
    """Everybody who waited gets the error; the next one finds the model well."""

    async def main() -> None:
        loads = Loads()
        loads.error = ModelFormatError("broken")
        served = models(loads, "a")
        results = await asyncio.gather(
            *(served.load("a") for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [ModelFormatError] * 3
        assert loads.names == ["a"]
        loads.error = None
        await served.load("a")
        assert loads.names == ["a", "a"]

    run(main())


def test_unknown_names_and_a_closed_server():
    """An unknown name is an error of its own; after close nothing is loaded any more."""

    async def main() -> None:
        loads = Loads()
        served = models(loads, "a")
        with pytest.raises(ModelNotFoundError, match="served: a"):
            await served.load("x")
        with pytest.raises(ModelNotFoundError):
            await served.load("../a")
        await served.load("a")
        await served.close()
        await served.close()
        assert loads.engines["a"].is_closed
        loading = models(loads, "a")
        loads.gate = asyncio.Event()
        task = asyncio.ensure_future(loading.load("a"))
        await until(lambda: len(loads.names) == 2)
        await loading.close()
        with pytest.raises(EngineError, match="shutting down"):
            await task

    run(main())
