"""`keep_alive` acts on every protocol's requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from quintet.hub.manifest import Manifest
from quintet.server.catalog import ServedModels, local_manifest
from quintet.server.models import LoadPolicy, Models

from .fake import FakeEngine
from .harness import run, serving_models

QUESTION = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": QUESTION}),
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/responses", {"input": "a", "store": False}),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 4}),
        ("/v1/messages/count_tokens", {"messages": QUESTION}),
        ("/api/chat", {"messages": QUESTION, "stream": False}),
        ("/api/generate", {"prompt": "a"}),
        ("/api/embed", {"input": "a"}),
        ("/completion", {"prompt": "a"}),
        ("/completion", {"prompt": "a", "stream": True}),
        ("/tokenize", {"content": "a"}),
        ("/embedding", {"content": "a"}),
        ("/woolly/api/generate", {"prompt": "a"}),
        ("/woolly/api/chat", {"messages": QUESTION, "stream": True}),
        ("/woolly/api/tokenize", {"text": "a"}),
    ],
)
@pytest.mark.parametrize(("keep_alive", "stays"), [(0, False), ("0s", False), ("5m", True)])
def test_a_model_goes_as_the_request_says(
    path: str, body: dict[str, Any], keep_alive: Any, stays: bool
):
    """0 lets it go after the reply; a duration keeps it."""

    async def load(manifest: Manifest) -> FakeEngine:
        return FakeEngine()

    async def main() -> None:
        catalog = ServedModels([local_manifest("m", Path("m"))])
        models = Models(catalog, load, LoadPolicy())
        async with (
            serving_models(models) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            reply = await client.post(path, json={"model": "m", "keep_alive": keep_alive, **body})
            assert reply.status_code == 200, reply.text
            assert bool(list(models)) is stays
            bad = await client.post(path, json={"model": "m", "keep_alive": "soon", **body})
            assert bad.status_code == 400

    run(main())
