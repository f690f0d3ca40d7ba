"""A stored model's system prompt, messages and parameters act on every protocol."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from quintet.hub.manifest import Manifest
from quintet.sampling.params import SamplingParams
from quintet.server.catalog import ServedModels, local_manifest
from quintet.server.models import LoadPolicy, Models
from quintet.server.requests import GenerationRequest
from quintet.server.stored import with_defaults

from .fake import FakeEngine
from .harness import run, serving_models

ASK = {"role": "user", "content": "ask"}
PARAMETERS = {"temperature": 0.25, "top_k": 7, "repeat_penalty": 1.5, "num_predict": 3, "seed": 9}
# Route to a body that says nothing of sampling, and to one that says all that the model does.
CHATS = {
    "/v1/chat/completions": {"messages": [ASK]},
    "/v1/responses": {"input": "ask"},
    "/v1/messages": {"messages": [ASK], "max_tokens": 3},
    "/woolly/api/chat": {"messages": [ASK]},
    "/api/chat": {"messages": [ASK], "stream": False},
}
TEXTS = {
    "/v1/completions": {"prompt": "Hello"},
    "/completion": {"prompt": "Hello"},
    "/woolly/api/generate": {"prompt": "Hello"},
}


def manifest(path: Path, parameters: Mapping[str, object]) -> Manifest:
    return dataclasses.replace(
        local_manifest("m", path),
        system="SYSTEM",
        messages=[{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}],
        parameters=parameters,
    )


def asked(
    path: str, body: Mapping[str, Any], root: Path, parameters: Mapping[str, object] = PARAMETERS
) -> tuple[FakeEngine, Any]:
    """What the engine of a stored model was asked for, and the reply."""
    engine = FakeEngine()

    async def load(_: Manifest) -> Any:
        return engine

    async def main() -> Any:
        models = Models(ServedModels([manifest(root, parameters)]), load, LoadPolicy())
        async with serving_models(models) as server:
            async with httpx.AsyncClient(base_url=server.url) as client:
                reply = await client.post(path, json={"model": "m", **body})
            assert reply.is_success, reply.text
            return reply.json()

    return engine, run(main())


@pytest.mark.parametrize(("path", "body"), CHATS.items())
def test_conversations_begin_with_what_is_stored(path: str, body: Any, tmp_path: Path):
    """System prompt and messages come before the client's, parameters where it says nothing."""
    engine, _ = asked(path, body, tmp_path)
    messages = engine.prompts[0][0]
    assert [each["content"] for each in messages] == ["SYSTEM", "1", "2", "ask"]
    params = engine.params[0]
    assert (params.temperature, params.top_k, params.repetition_penalty) == (0.25, 7, 1.5)
    assert (params.max_tokens, params.seed) == (3, 9)


@pytest.mark.parametrize(("path", "body"), TEXTS.items())
def test_texts_have_the_stored_parameters_alone(path: str, body: Any, tmp_path: Path):
    """What is to be continued as it stands gets no messages before it."""
    engine, _ = asked(path, body, tmp_path)
    params = engine.params[0]
    assert (params.temperature, params.top_k, params.max_tokens) == (0.25, 7, 3)
    assert engine.prompts[0] in ("Hello", [0, 1], [1])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [ASK], "temperature": 1.0, "max_tokens": 2}),
        ("/v1/completions", {"prompt": "Hello", "temperature": 1.0, "max_tokens": 2}),
        ("/v1/responses", {"input": "ask", "temperature": 1.0, "max_output_tokens": 2}),
        ("/v1/messages", {"messages": [ASK], "temperature": 1.0, "max_tokens": 2}),
        ("/completion", {"prompt": "Hello", "temperature": 1.0, "n_predict": 2}),
        ("/woolly/api/chat", {"messages": [ASK], "temperature": 1.0, "max_tokens": 2}),
    ],
)
def test_what_the_request_says_goes_first(path: str, body: Any, tmp_path: Path):
    """Also where it is what the engine would have taken anyway; the rest is the model's."""
    engine, _ = asked(path, body, tmp_path)
    params = engine.params[0]
    assert (params.temperature, params.max_tokens, params.top_k) == (1.0, 2, 7)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "system", "content": "MINE"}, ASK]}),
        ("/v1/responses", {"input": "ask", "instructions": "MINE"}),
        ("/v1/messages", {"messages": [ASK], "system": "MINE", "max_tokens": 3}),
    ],
)
def test_a_system_prompt_takes_the_place_of_the_stored_one(path: str, body: Any, tmp_path: Path):
    """The stored messages stay, behind it."""
    engine, _ = asked(path, body, tmp_path)
    assert [each["content"] for each in engine.prompts[0][0]] == ["MINE", "1", "2", "ask"]


def test_a_response_says_what_acted(tmp_path: Path):
    """Of the fields that come back, those the model has set."""
    _, reply = asked("/v1/responses", {"input": "ask"}, tmp_path)
    assert reply["temperature"] == 0.25
    _, reply = asked("/completion", {"prompt": "Hello"}, tmp_path)
    assert reply["generation_settings"]["temperature"] == 0.25


@pytest.mark.parametrize(
    "stored",
    [
        {"temperature": 0},
        {"temperature": 0, "top_k": 5, "min_p": 0.1},
        {"mirostat": 2, "mirostat_tau": 4.0},
        {"mirostat": 2, "top_p": 0.5},
        {"num_predict": -1, "seed": -1},
        {"stop": ["x", "y"], "num_ctx": 64},
    ],
)
def test_defaults_that_do_not_go_with_the_request_are_left_out(stored: Any, tmp_path: Path):
    """No request fails because of what its model's owner has set."""
    request = GenerationRequest("a", SamplingParams(), asked=frozenset())
    assert with_defaults(request, manifest(tmp_path, stored)).asked is None
    bodies = [
        ("/v1/completions", {}),
        ("/v1/completions", {"top_p": 0.5}),
        ("/v1/completions", {"temperature": 0}),
        ("/v1/completions", {"min_tokens": 9, "max_tokens": 20}),
        ("/completion", {}),
        ("/completion", {"top_k": 3}),
        ("/completion", {"mirostat": 1}),
        ("/woolly/api/generate", {"top_k": 3}),
    ]
    engine = FakeEngine()

    async def load(_: Manifest) -> Any:
        return engine

    async def main() -> None:
        served = ServedModels([manifest(tmp_path, stored)])
        async with (
            serving_models(Models(served, load, LoadPolicy())) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            for path, body in bodies:
                reply = await client.post(path, json={"model": "m", "prompt": "Hello", **body})
                assert reply.is_success, (path, body, reply.text)

    run(main())
    for (_, body), params in zip(bodies, engine.params, strict=True):
        for name in body.keys() & {"temperature", "top_p", "top_k", "mirostat"}:
            assert getattr(params, name) == body[name]


def test_a_websocket_has_them_too(tmp_path: Path):
    """Woolly's, where the fields of sampling stand under `config`."""

    async def main() -> None:
        engine = FakeEngine()

        async def load(_: Manifest) -> Any:
            return engine

        served = ServedModels([manifest(tmp_path, PARAMETERS)])
        async with serving_models(Models(served, load, LoadPolicy())) as server:
            url = server.url.replace("http", "ws", 1) + "/woolly/ws"
            async with websockets.connect(url) as socket:
                await socket.send(
                    json.dumps({"type": "chat", "id": "a", "model": "m", "messages": [ASK],
                                "config": {"top_k": 3}})
                )  # fmt: skip
                while json.loads(await socket.recv())["type"] != "complete":
                    pass
        assert engine.prompts[0][0][0] == {"role": "system", "content": "SYSTEM"}
        assert (engine.params[0].temperature, engine.params[0].top_k) == (0.25, 3)

    run(main())


def test_counted_tokens_include_them(tmp_path: Path):
    """What a prompt will take is asked of the conversation as the model will read it."""
    counted: list[Any] = []

    class Counting(FakeEngine):
        async def count_tokens(self, messages: list[dict[str, Any]], **options: Any) -> int:
            counted.append([each["content"] for each in messages])
            return 7

    async def load(_: Manifest) -> Any:
        return Counting()

    async def main() -> None:
        policy = LoadPolicy(keep_alive_s=math.inf)
        async with (
            serving_models(Models(ServedModels([manifest(tmp_path, {})]), load, policy)) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            for path, body in (
                ("/v1/messages/count_tokens", {"messages": [ASK]}),
                ("/v1/chat/completions/input_tokens", {"messages": [ASK]}),
                ("/v1/responses/input_tokens", {"input": "ask"}),
            ):
                assert (await client.post(path, json={"model": "m", **body})).is_success

    run(main())
    assert counted == [["SYSTEM", "1", "2", "ask"]] * 3
