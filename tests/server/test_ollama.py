"""Ollama's interface: the official client on the demo model, every chunk's fields, refusals."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from quintet import AsyncLLM
from quintet.errors import RequestError
from quintet.hub.manifest import Manifest
from quintet.hub.packaged import packaged_manifests
from quintet.hub.store import Store
from quintet.server.dialects.ollama.bodies import GenerateBody, Options
from quintet.server.dialects.ollama.options import merged_options, sampling_params
from quintet.server.keep_alive import keep_alive_s
from quintet.server.models import LoadPolicy, Models
from quintet.server.stored import with_stored

from .fake import FakeEngine
from .harness import home, run, serving, serving_models

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def on_store(
    root: Path, use: Callable[[ollama.AsyncClient, httpx.AsyncClient], Awaitable[None]]
) -> None:
    """Run clients against a server that loads the models of a store."""

    async def load(manifest: Manifest) -> AsyncLLM:
        return await AsyncLLM(manifest.name, num_threads=1).__aenter__()

    async def main() -> None:
        models = Models(Store(root), load, LoadPolicy())
        async with (
            home(root),
            serving_models(models) as server,
            httpx.AsyncClient(base_url=server.url) as raw,
        ):
            client = ollama.AsyncClient(host=server.url)
            try:
                await use(client, raw)
            finally:
                await client._client.aclose()

    run(main())


def test_chat_and_generate_whole_and_streamed(tmp_path: Path):
    """The model is loaded when asked for; streams are the whole in pieces; times are told."""

    async def use(client: ollama.AsyncClient, raw: httpx.AsyncClient) -> None:
        assert (await raw.get("/")).text == "Ollama is running"
        assert (await client.ps()).models == []
        whole = await client.chat("demo", QUESTION, options=GREEDY)
        assert "Paris" in whole.message.content
        assert (whole.done, whole.done_reason) == (True, "stop")
        assert whole.prompt_eval_count > 5
        assert whole.eval_count > 1
        assert whole.total_duration >= whole.load_duration > 0
        parts = [
            part async for part in await client.chat("demo", QUESTION, options=GREEDY, stream=True)
        ]
        assert "".join(part.message.content for part in parts) == whole.message.content
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]

        answer = await client.generate("demo", QUESTION[0]["content"], options=GREEDY)
        assert answer.response == whole.message.content
        raw_answer = await client.generate(
            "demo", "The capital of France is", raw=True, options={**GREEDY, "num_predict": 2}
        )
        assert raw_answer.done_reason == "length"
        assert raw_answer.eval_count == 2

        running = (await client.ps()).models
        assert [(model.name, model.size_vram) for model in running] == [("demo:latest", 0)]
        assert running[0].context_length > 0

        reply = await raw.post("/api/chat", json={"model": "demo", "messages": QUESTION})
        assert reply.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in reply.text.splitlines()]
        assert all(line["model"] == "demo" and line["created_at"].endswith("Z") for line in lines)

    on_store(tmp_path, use)


def test_formats_tools_and_logprobs(tmp_path: Path):
    """A schema holds; a call comes whole, its arguments an object; tokens come with bytes."""

    async def use(client: ollama.AsyncClient, raw: httpx.AsyncClient) -> None:
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 8}},
            "required": ["name"],
        }
        answer = await client.chat("demo", QUESTION, format=schema, options=GREEDY)
        assert isinstance(json.loads(answer.message.content)["name"], str)
        question = [{"role": "user", "content": "What is the weather in Paris?"}]
        for stream in (False, True):
            body = {
                "model": "demo",
                "messages": question,
                "tools": [WEATHER],
                "options": GREEDY,
                "stream": stream,
            }
            reply = await raw.post("/api/chat", json=body)
            lines = [json.loads(line) for line in reply.text.splitlines()]
            calls = [
                line["message"]["tool_calls"] for line in lines if "tool_calls" in line["message"]
            ]
            assert [call["function"]["name"] for call in calls[0]] == ["get_weather"]
            assert isinstance(calls[0][0]["function"]["arguments"], dict)
            assert calls[0][0]["function"]["index"] == 0
            assert lines[-1]["done_reason"] == "stop"
        body = {
            "model": "demo",
            "prompt": "Hello",
            "logprobs": True,
            "top_logprobs": 2,
            "stream": False,
            "options": GREEDY,
        }
        reply = (await raw.post("/api/generate", json=body)).json()
        first = reply["logprobs"][0]
        assert bytes(first["bytes"]).decode() == first["token"]
        assert first["top_logprobs"][0]["token"] == first["token"]
        assert "".join(item["token"] for item in reply["logprobs"]) == reply["response"]

    on_store(tmp_path, use)


def test_what_the_library_tells(tmp_path: Path):
    """Lists, details and capabilities; nothing of them is null where clients cannot bear it."""

    async def use(client: ollama.AsyncClient, raw: httpx.AsyncClient) -> None:
        listed = (await client.list()).models
        assert [model.model for model in listed] == ["demo:latest"]
        assert listed[0].details.family == "qwen3"
        assert listed[0].details.parameter_size.endswith("M")
        entry = (await raw.get("/api/tags")).json()["models"][0]
        assert len(entry["digest"]) == 64
        assert {"completion", "tools"} <= set(entry["capabilities"])
        shown = await client.show("demo")
        assert shown.modelinfo["general.architecture"] == "qwen3"
        assert shown.modelinfo["qwen3.context_length"] > 0
        assert shown.modelinfo["general.parameter_count"] > 10**6
        assert shown.modelinfo["tokenizer.ggml.tokens"] == []
        assert "completion" in shown.capabilities
        assert "FROM demo" in shown.modelfile
        verbose = await raw.post("/api/show", json={"name": "demo", "verbose": True})
        assert len(verbose.json()["model_info"]["tokenizer.ggml.tokens"]) > 100
        version = (await raw.get("/api/version")).json()["version"]
        assert [part.isdigit() for part in version.split(".")] == [True] * 3

    on_store(tmp_path, use)


def test_create_copy_delete_and_blobs(tmp_path: Path):
    """A model made of another one answers with its system message; one of a blob works as well."""

    async def use(client: ollama.AsyncClient, raw: httpx.AsyncClient) -> None:
        progress = await client.create(
            "bob",
            from_="demo",
            system="Your name is Bob.",
            parameters={"temperature": 0, "num_predict": 3, "stop": ["x"]},
        )
        assert progress.status == "success"
        assert (await client.show("bob")).parameters.split()[:2] == ["temperature", "0"]
        answer = await client.chat("bob", QUESTION)
        assert answer.eval_count <= 3
        await client.copy("bob", "ann")
        assert {model.model for model in (await client.list()).models} == {
            "demo:latest",
            "bob:latest",
            "ann:latest",
        }
        await client.delete("bob")
        with pytest.raises(ollama.ResponseError, match="not found") as error:
            await client.chat("bob", QUESTION)
        assert error.value.status_code == 404

        data = packaged_manifests()["demo:latest"].path.read_bytes()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        assert (await raw.head(f"/api/blobs/{digest}")).status_code == 404
        assert (await raw.post(f"/api/blobs/{digest}", content=data)).status_code == 201
        assert (await raw.post(f"/api/blobs/{digest}", content=data)).status_code == 200
        assert (await raw.head(f"/api/blobs/{digest}")).status_code == 200
        wrong = "sha256:" + "0" * 64
        assert (await raw.post(f"/api/blobs/{wrong}", content=b"x")).status_code == 400
        await client.create("mine", files={"model.gguf": digest})
        answer = await client.generate("mine", QUESTION[0]["content"], options=GREEDY)
        assert "Paris" in answer.response

    on_store(tmp_path, use)


def test_loading_and_unloading_by_empty_requests(tmp_path: Path):
    """No prompt loads; no prompt kept for 0 s unloads; keep_alive acts on any request."""

    async def use(client: ollama.AsyncClient, raw: httpx.AsyncClient) -> None:
        loaded = await client.generate("demo", keep_alive="1h")
        assert (loaded.done_reason, loaded.response) == ("load", "")
        assert len((await client.ps()).models) == 1
        unloaded = await client.chat("demo", [], keep_alive=0)
        assert unloaded.done_reason == "unload"
        assert (await client.ps()).models == []
        await client.chat("demo", QUESTION, keep_alive=0, options={"num_predict": 1})
        assert (await client.ps()).models == []

    on_store(tmp_path, use)


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("/api/chat", {}, 400),
    ("/api/chat", {"model": "other", "messages": QUESTION}, 404),
    ("/api/chat", {"model": "../x", "messages": QUESTION}, 400),
    ("/api/chat", {"model": "/etc/passwd", "messages": QUESTION}, 400),
    ("/api/chat", {"model": "demo", "messages": [{"role": "root", "content": "a"}]}, 400),
    ("/api/chat", {"model": "demo", "messages": "a"}, 400),
    ("/api/chat", {"model": "demo", "messages": [{"role": "user", "images": ["aa"]}]}, 400),
    ("/api/chat", {"model": "demo", "messages": QUESTION, "format": "xml"}, 400),
    ("/api/chat", {"model": "demo", "messages": QUESTION, "options": {"top_k": "x"}}, 400),
    ("/api/chat", {"model": "demo", "messages": QUESTION, "options": {"seed": 2**65}}, 400),
    ("/api/chat", {"model": "demo", "messages": QUESTION, "keep_alive": "5 minutes"}, 400),
    ("/api/chat", {"model": "demo", "messages": QUESTION, "top_logprobs": 21}, 400),
    ("/api/chat", {"model": "demo", "messages": QUESTION, "options": {"num_ctx": 4}}, 400),
    ("/api/generate", {"model": "demo", "prompt": "a", "images": ["aa"]}, 400),
    ("/api/generate", {"model": "demo", "prompt": "a", "suffix": "b"}, 400),
    ("/api/generate", {"model": "demo", "prompt": "a", "template": "{{ .Prompt }}"}, 400),
    ("/api/generate", {"model": "demo", "prompt": "a", "raw": True, "system": "b"}, 400),
    ("/api/generate", {"model": "demo", "prompt": "word " * 5000}, 400),
    ("/api/show", {"model": "other"}, 404),
    ("/api/show", {}, 400),
    ("/api/copy", {"source": "other", "destination": "x"}, 404),
    ("/api/copy", {"source": "demo", "destination": "../x"}, 400),
    ("/api/create", {"model": "x"}, 400),
    ("/api/create", {"model": "x", "from": "other", "stream": False}, 404),
    ("/api/create", {"model": "x", "from": "/etc/passwd", "stream": False}, 400),
    ("/api/create", {"model": "x", "from": "demo", "template": "{{ .Prompt }}"}, 400),
    ("/api/create", {"model": "x", "from": "demo", "quantize": "q4_0"}, 400),
    ("/api/create", {"model": "demo", "from": "demo", "stream": False}, 400),
    ("/api/push", {"model": "demo"}, 501),
]


def test_bad_requests_are_refused_in_ollamas_shape(tmp_path: Path):
    """A text, with the right status, even where a stream was asked for; the server goes on."""

    async def use(client: ollama.AsyncClient, raw: httpx.AsyncClient) -> None:
        for path, body, status in BAD:
            reply = await raw.post(path, json=body)
            assert reply.status_code == status, (path, body, reply.text)
            assert isinstance(reply.json()["error"], str)
        reply = await raw.request("DELETE", "/api/delete", json={"model": "demo"})
        assert reply.status_code == 400
        assert (await raw.get("/api/chat")).status_code == 405
        assert (await client.generate("demo", "a", options={"num_predict": 1})).done

    on_store(tmp_path, use)


def test_fixed_models_cannot_be_changed():
    """A server started with certain models keeps to them."""

    async def main() -> None:
        async with (
            serving({"m": FakeEngine()}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {"model": "x", "from": "m"}
            assert (await client.post("/api/create", json=body)).status_code == 403
            assert (await client.post("/api/pull", json={"model": "x"})).status_code == 403
            reply = await client.post("/api/generate", json={"model": "m", "prompt": "a"})
            assert json.loads(reply.text.splitlines()[-1])["done"] is True

    run(main())


def test_an_error_within_a_stream_is_a_line():
    """What goes wrong after the first byte is told, and the stream ends."""

    async def main() -> None:
        async with (
            serving({"m": FakeEngine(error_after=2)}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            reply = await client.post("/api/chat", json={"model": "m", "messages": QUESTION})
            assert reply.status_code == 200
            lines = [json.loads(line) for line in reply.text.splitlines()]
            assert "error" in lines[-1]
            assert not any(line.get("done") for line in lines)

    run(main())


def test_a_client_that_leaves_ends_its_request():
    """The engine's request is aborted."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {"model": "m", "prompt": "a"}
            asking = asyncio.ensure_future(client.post("/api/generate", json=body))
            while engine.num_running < 1:
                await asyncio.sleep(0.005)
            asking.cancel()
            while engine.num_aborted < 1:
                await asyncio.sleep(0.005)

    run(main())


def test_options_come_in_layers():
    """A request's option, else the model's own, else Ollama's default."""
    merged = merged_options({"temperature": 0.5, "top_k": 7}, Options(top_k=9))
    assert (merged.temperature, merged.top_k, merged.top_p) == (0.5, 9, 0.9)
    greedy = sampling_params(GenerateBody(model="m"), Options(temperature=0, top_k=5))
    assert greedy.top_k == 0
    mirostat = sampling_params(GenerateBody(model="m"), Options(mirostat=2, top_k=5))
    assert (mirostat.mirostat, mirostat.top_k) == (2, 0)
    assert sampling_params(GenerateBody(model="m"), Options(num_predict=-2)).max_tokens is None
    with pytest.raises(RequestError, match="top_k"):
        merged_options({"top_k": "x"}, None)


def test_stored_messages_come_first():
    """A system message of the conversation wins over the model's."""
    manifest = packaged_manifests()["demo:latest"]
    stored = Manifest(
        name="m",
        path=manifest.path,
        digest="",
        size_bytes=0,
        modified_at=0,
        source="local",
        system="S",
        messages=[{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}],
    )
    ask = {"role": "user", "content": "3"}
    own = {"role": "system", "content": "O"}
    assert [m["content"] for m in with_stored([ask], stored)] == ["S", "1", "2", "3"]
    assert [m["content"] for m in with_stored([own, ask], stored)] == ["O", "1", "2", "3"]
    assert with_stored([ask], manifest) == [ask]


def test_keep_alive_in_all_its_forms():
    """Seconds, durations, and for ever."""
    assert keep_alive_s("1h30m") == 5400
    assert keep_alive_s(-1) == math.inf
    assert keep_alive_s("-1s") == math.inf
    assert keep_alive_s(0) == 0
