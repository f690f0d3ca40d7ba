"""Woolly's interface: HTTP, the WebSocket protocol, and the reference's own clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from quintet import AsyncLLM
from quintet.hub.manifest import Manifest
from quintet.hub.store import Store
from quintet.server.models import LoadPolicy, Models
from quintet.server.run import Server

from .fake import FakeEngine
from .harness import home, run, serving, serving_models, until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@contextlib.asynccontextmanager
async def on_store(root: Path, **settings: Any) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """A server that loads the models of a store, with Woolly's routes at the root."""

    async def load(manifest: Manifest) -> AsyncLLM:
        return await AsyncLLM(manifest.path, num_threads=1).__aenter__()

    models = Models(Store(root), load, LoadPolicy())
    async with (
        home(root),
        serving_models(models, dialect="woolly", **settings) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        yield server, client


@contextlib.asynccontextmanager
async def connected(server: Server, path: str = "/ws") -> AsyncIterator[Any]:
    """A WebSocket client that has read the first status."""
    async with websockets.connect(server.url.replace("http", "ws") + path) as socket:
        status = json.loads(await socket.recv())
        assert status["type"] == "status"
        yield socket


@pytest.fixture
def reference(shared_data: Path) -> str:
    """Woolly's API reference."""
    path = shared_data.parent / "specs" / "003_a20964faab9becd3.txt"
    if not path.exists():
        pytest.skip("the reference is not here")
    return path.read_text()


async def until_end(socket: Any, request_id: str) -> list[dict[str, Any]]:
    """All events of a request, to its last."""
    events = []
    while True:
        event = json.loads(await asyncio.wait_for(socket.recv(), 20))
        if event.get("request_id") == request_id:
            events.append(event)
            if event["type"] in ("complete", "error"):
                return events


def test_models_are_loaded_used_and_unloaded(tmp_path: Path):
    """Without a model there is an error of its own; the one loaded is meant by all that follows."""

    async def main() -> None:
        async with on_store(tmp_path) as (_, client):
            reply = await client.post("/api/generate", json={"prompt": "a"})
            assert reply.status_code == 400
            assert reply.json()["error"]["code"] == "MODEL_NOT_LOADED"
            reply = await client.post("/api/models/load", json={"name": "llama-7b"})
            assert reply.status_code == 404
            error = reply.json()["error"]
            assert error["code"] == "MODEL_NOT_FOUND"
            assert error["message"] == "Model not found: llama-7b"
            assert error["details"] == {"model": "llama-7b", "available_models": ["demo:latest"]}
            loaded = await client.post("/api/models/load", json={"name": "demo", "gpu_layers": 32})
            assert loaded.json()["success"] is True
            listed = (await client.get("/api/models")).json()
            assert [(model["name"], model["loaded"]) for model in listed] == [("demo:latest", True)]
            assert listed[0]["metadata"]["parameters"].endswith("M")

            body = {"messages": QUESTION, "temperature": 0, "max_tokens": 16}
            chat = (await client.post("/api/chat", json=body)).json()
            assert "Paris" in chat["content"]
            assert (chat["role"], chat["finish_reason"]) == ("assistant", "stop")
            assert chat["tokens_generated"] > 1
            body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
            whole = (await client.post("/api/generate", json=body)).json()
            assert whole["tokens_per_second"] > 0
            reply = await client.post("/api/generate", json={**body, "stream": True})
            lines = reply.text.strip().split("\n\n")
            assert lines[-1] == "data: [DONE]"
            tokens = [json.loads(line[6:]) for line in lines[:-1]]
            assert "".join(token["token"] for token in tokens) == whole["text"]
            assert [token["id"] for token in tokens] == list(range(len(tokens)))

            tokenized = (await client.post("/api/tokenize", json={"text": "Hello, world!"})).json()
            assert tokenized["count"] == len(tokenized["tokens"])
            text = await client.post("/api/detokenize", json={"tokens": tokenized["tokens"]})
            assert text.json() == {"text": "Hello, world!"}
            unloaded = await client.post("/api/models/unload")
            assert unloaded.json() == {"success": True, "message": "Model unloaded"}
            assert (await client.post("/api/models/unload")).status_code == 400

    run(main())


def test_bad_bodies_have_codes(tmp_path: Path):
    """Every refusal has a code of the reference."""

    async def main() -> None:
        async with on_store(tmp_path) as (_, client):
            await client.post("/api/models/load", json={"name": "demo"})
            for path, body in (
                ("/api/generate", {}),
                ("/api/generate", {"prompt": "a", "max_tokens": 0}),
                ("/api/generate", {"prompt": "a", "temperature": "x"}),
                ("/api/generate", {"prompt": "word " * 5000}),
                ("/api/chat", {"messages": []}),
                ("/api/chat", {"messages": [{"role": "root", "content": "a"}]}),
                ("/api/tokenize", {"text": 1}),
                ("/api/detokenize", {"tokens": [10**8]}),
            ):
                reply = await client.post(path, json=body)
                assert reply.status_code == 400, (path, body)
                assert reply.json()["error"]["code"] == "INVALID_REQUEST"

    run(main())


def test_answers_interleave_on_one_socket(tmp_path: Path):
    """Two requests at once; each one's tokens are its text, and what HTTP answers."""

    async def main() -> None:
        async with on_store(tmp_path) as (server, client):
            await client.post("/api/models/load", json={"name": "demo"})
            config = {"temperature": 0, "max_tokens": 12}
            async with connected(server) as socket:
                await socket.send(
                    json.dumps({"type": "chat", "id": "a", "messages": QUESTION, "config": config})
                )
                await socket.send(
                    json.dumps({"type": "generate", "id": "b", "prompt": "One", "config": config})
                )
                events: list[dict[str, Any]] = []
                while sum(event["type"] == "complete" for event in events) < 2:
                    events.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
            for name, path, body in (
                ("a", "/api/chat", {"messages": QUESTION}),
                ("b", "/api/generate", {"prompt": "One"}),
            ):
                own = [event for event in events if event["request_id"] == name]
                tokens = [event for event in own if event["type"] == "token"]
                assert [event["index"] for event in tokens] == list(range(len(tokens)))
                text = "".join(event["token"] for event in tokens)
                assert own[-1]["text"] == text
                reply = (await client.post(path, json={**body, **config})).json()
                assert reply.get("content", reply.get("text")) == text

    run(main())


def test_cancelling_and_mistakes():
    """A cancelled request completes with what it had; a mistake is told and nothing ends."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with serving({"m": engine}) as server, connected(server, "/woolly/ws") as socket:
            generate = {"type": "generate", "id": "a", "prompt": "x"}
            await socket.send(json.dumps(generate))
            await until(lambda: engine.num_running == 1)
            for bad in (
                "{",
                "[]",
                '{"type": "generate"}',
                '{"type": "dance", "id": "z"}',
                '{"type": "generate", "id": "z"}',
                '{"type": "chat", "id": "z"}',
                '{"type": "cancel", "id": "z"}',
                '{"type": "generate", "id": "z", "prompt": "a", "config": {"top_p": "x"}}',
                json.dumps(generate),
            ):
                await socket.send(bad)
                event = json.loads(await socket.recv())
                assert (event["type"], event["code"]) == ("error", "INVALID_REQUEST"), bad
            engine.permit()
            assert json.loads(await socket.recv())["token"] == "Hello"
            await socket.send(json.dumps({"type": "cancel", "id": "a"}))
            event = json.loads(await socket.recv())
            assert (event["type"], event["finish_reason"]) == ("complete", "cancelled")
            assert event["text"] == "Hello"
            assert engine.num_aborted == 1
            await socket.send(json.dumps({"type": "status"}))
            status = json.loads(await socket.recv())
            assert (status["model"], status["active_sessions"]) == ("m", 1)
            engine.permit(100)
            await socket.send(json.dumps(generate))
            assert (await until_end(socket, "a"))[-1]["finish_reason"] == "stop"

    run(main())


def test_a_client_that_leaves_ends_its_requests():
    """All of a connection's requests are aborted with it; too many are refused."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with serving({"m": engine}) as server:
            async with connected(server) as socket:
                for number in range(17):
                    message = {"type": "generate", "id": str(number), "prompt": "x"}
                    await socket.send(json.dumps(message))
                event = json.loads(await socket.recv())
                assert (event["request_id"], event["code"]) == ("16", "RATE_LIMITED")
                await until(lambda: engine.num_running == 16)
            await until(lambda: engine.num_aborted == 16)

    run(main())


def test_a_silent_socket_is_closed():
    """Not while an answer is awaited, which may take long to begin."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}, dialect="woolly", socket_idle_s=0.2) as server,
            connected(server) as socket,
        ):
            ask = {"type": "generate", "id": "a", "prompt": "x", "model": "m"}
            await socket.send(json.dumps(ask))
            await until(lambda: engine.num_running == 1)
            await asyncio.sleep(0.5)
            engine.permit(100)
            assert (await until_end(socket, "a"))[-1]["type"] == "complete"
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
            assert socket.close_code == 1000

    run(main())


def test_a_foreign_page_gets_no_socket():
    """A handshake of another origin is refused before it is accepted."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server:
            url = server.url.replace("http", "ws") + "/ws"
            with pytest.raises(websockets.InvalidStatus) as error:
                await websockets.connect(url, origin="http://evil.example")
            assert error.value.response.status_code == 403

    run(main())


def test_the_references_python_client_works(tmp_path: Path, reference: str):
    """The class as printed, against a running server."""
    pytest.importorskip("requests")
    source = next(
        block
        for block in re.findall(r"```python\n(.*?)```", reference, re.S)
        if "class WoollyClient" in block
    )
    namespace: dict[str, Any] = {}
    exec(source.split("# Usage")[0], namespace)

    async def main() -> None:
        async with on_store(tmp_path) as (server, http):
            await http.post("/api/models/load", json={"name": "demo"})
            client = namespace["WoollyClient"](server.url)
            text = await asyncio.to_thread(client.generate, "Once upon a time", max_tokens=5)
            assert text
            tokens = await asyncio.to_thread(
                lambda: list(client.generate_stream("Tell me a story", max_tokens=5))
            )
            assert 1 <= len(tokens) <= 5

    run(main())


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_references_websocket_class_works_under_node(tmp_path: Path, reference: str):
    """The JavaScript class as printed, in Node."""
    source = next(
        block
        for block in re.findall(r"```javascript\n(.*?)```", reference, re.S)
        if "class WoollyWebSocket" in block
    )
    script = tmp_path / "client.mjs"

    async def main() -> None:
        async with on_store(tmp_path / "store") as (server, http):
            await http.post("/api/models/load", json={"name": "demo"})
            url = server.url.replace("http", "ws") + "/ws"
            script.write_text(
                source.split("// Usage")[0]
                + f"""
const client = new WoollyWebSocket({json.dumps(url)});
await client.connect();
let text = '';
client.generate('Tell me a story', {{ max_tokens: 8, temperature: 0 }}, {{
  onToken: (msg) => {{ text += msg.token; }},
  onComplete: (msg) => {{
    console.log(JSON.stringify({{ same: text === msg.text, count: msg.tokens_generated }}));
    client.close();
  }},
  onError: (msg) => {{ console.error(msg.error); process.exit(1); }},
}});
"""
            )
            process = await asyncio.create_subprocess_exec(
                "node",
                "--no-warnings",
                "--experimental-websocket",
                str(script),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(process.communicate(), 25)
            assert process.returncode == 0, err.decode()
            told = json.loads(out.decode().strip().splitlines()[-1])
            assert told == {"same": True, "count": 8}

    run(main())
