"""A server with the packaged model, for clients that run outside its event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quintet import AsyncLLM
from quintet.hub.manifest import Manifest
from quintet.hub.store import Store
from quintet.server.models import LoadPolicy, Models
from server.harness import serving_in_thread


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that loads the demo model when asked for."""

    async def load(manifest: Manifest) -> AsyncLLM:
        return await AsyncLLM(manifest.name, num_threads=1).__aenter__()

    store = Store(tmp_path_factory.mktemp("store"))
    with serving_in_thread(Models(store, load, LoadPolicy())) as address:
        yield address
