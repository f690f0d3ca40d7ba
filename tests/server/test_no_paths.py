"""No request names a file of the server or has it fetch a URL; nothing tells which files exist."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from quintet.hub.resolve import packaged_models
from quintet.hub.store import Store
from quintet.server.models import Models

from .fake import FakeEngine
from .harness import home, run, serving_models

MESSAGES = [{"role": "user", "content": "a"}]
PLACES = [
    ("POST", "/v1/chat/completions", {"messages": MESSAGES}),
    ("POST", "/v1/completions", {"prompt": "a"}),
    ("POST", "/v1/embeddings", {"input": "a"}),
    ("POST", "/v1/responses", {"input": "a"}),
    ("POST", "/v1/messages", {"messages": MESSAGES, "max_tokens": 2}),
    ("POST", "/completion", {"prompt": "a"}),
    ("POST", "/tokenize", {"content": "a"}),
    ("POST", "/api/chat", {"messages": MESSAGES}),
    ("POST", "/api/generate", {"prompt": "a"}),
    ("POST", "/api/show", {}),
    ("POST", "/api/copy", {"source": None, "destination": "x"}),
    ("POST", "/api/create", {"model": "made", "from": None, "stream": False}),
    ("DELETE", "/api/delete", {}),
    ("POST", "/woolly/api/generate", {"prompt": "a"}),
    ("POST", "/woolly/api/models/load", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), PLACES, ids=[path for _, path, _ in PLACES])
def test_a_path_is_no_name(tmp_path: Path, method: str, path: str, body: dict[str, Any]):
    """A file that is there and one that is not get the same answer, and none is opened."""
    real = tmp_path / "real.gguf"
    real.write_bytes(packaged_models()["demo"].read_bytes())
    loaded = []

    async def load(manifest: Any) -> Any:
        loaded.append(manifest.path)
        return FakeEngine()

    async def main() -> None:
        async with (
            home(tmp_path / "home"),
            serving_models(Models(Store(), load)) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            for template in ("{}", "./{}", "../../../../../..{}", "file://{}", "{}\0", "x:{}"):
                answers = []
                for file in (real, tmp_path / "none.gguf"):
                    name = template.format(file)
                    field = next((k for k, value in body.items() if value is None), "model")
                    reply = await client.request(method, path, json={**body, field: name})
                    assert 400 <= reply.status_code < 500, (name, reply.text)
                    text = reply.text.replace("real.gguf", "FILE").replace("none.gguf", "FILE")
                    answers.append((reply.status_code, text))
                assert answers[0] == answers[1]
            assert str(tmp_path / "home") not in answers[0][1]

    run(main())
    assert not loaded
    assert real.exists()


def test_no_url_of_a_request_is_fetched(tmp_path: Path):
    """Neither as a model to pull or make something of, nor as a picture in a message."""

    async def main() -> None:
        heard: list[bytes] = []

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(100))
            writer.close()

        listener = await asyncio.start_server(hear, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/x"
        picture = [{"type": "image_url", "image_url": {"url": url}}]
        async with (
            home(tmp_path / "home"),
            serving_models(Models.of({"m": FakeEngine()})) as server,
            httpx.AsyncClient(base_url=server.url, timeout=10) as client,
        ):
            for path, body in (
                ("/api/pull", {"model": url, "stream": False}),
                ("/api/pull", {"model": f"127.0.0.1:{port}/a/b", "stream": False}),
                ("/api/push", {"model": url, "stream": False}),
                ("/api/create", {"model": "made", "from": url, "stream": False}),
                ("/v1/chat/completions", {"model": url, "messages": MESSAGES}),
                ("/v1/chat/completions",
                 {"model": "m", "messages": [{"role": "user", "content": picture}]}),
                ("/v1/responses", {"model": "m", "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
                ("/v1/messages", {"model": "m", "max_tokens": 2, "messages": [
                    {"role": "user", "content": [
                        {"type": "image", "source": {"type": "url", "url": url}}]}]}),
            ):  # fmt: skip
                reply = await client.post(path, json=body)
                assert 400 <= reply.status_code < 500, (path, body, reply.text)
        listener.close()
        assert not heard

    # Should anything be looked up after all, it fails at once rather than reach a network.
    real = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1", *a, **k))
        run(main())
