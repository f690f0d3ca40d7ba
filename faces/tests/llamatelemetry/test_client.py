"""llamatelemetry.api.client against Quintet's server, and against answers of llama.cpp's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from llamatelemetry.api.client import (
    ChatCompletionChunk,
    ChatCompletionResponse,
    Choice,
    ChunkChoice,
    CompletionResponse,
    Delta,
    Embedding,
    EmbeddingResponse,
    LlamaCppClient,
    Message,
    ModelList,
    Usage,
)
from llamatelemetry.exceptions import ClientError, ServerError
from llamatelemetry.server import ServerConfig, ServerManager

HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ServerManager() as server:
        server.start_with_config(ServerConfig("demo", port=port, threads=2))
        assert server.wait_until_ready(), server.get_logs()
        yield server.get_url()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[LlamaCppClient]:
    with LlamaCppClient(base_url=url, timeout=60) as client:
        yield client


def test_status(client: LlamaCppClient):
    """health, list_models, get_props and get_slots."""
    assert client.health() == {"status": "ok"}
    models = client.list_models()
    assert isinstance(models, ModelList)
    assert models.object == "list"
    assert [model.id for model in models.data] == ["demo"]
    assert client.get_props()["total_slots"] == len(client.get_slots())


def test_chat_completion_is_what_openais_client_gets(client: LlamaCppClient, url: str):
    """chat_completion(messages, max_tokens, temperature, top_p, top_k, repeat_penalty, stop, seed,
    stream)."""
    options = {"max_tokens": 20, "temperature": 0.9, "top_p": 0.9, "seed": 3, "stop": ["?"]}
    response = client.chat_completion(
        messages=HELLO, top_k=30, repeat_penalty=1.2, stream=False, **options
    )
    assert isinstance(response, ChatCompletionResponse)
    peer = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    expected = peer.chat.completions.create(
        model="any", messages=HELLO, extra_body={"top_k": 30, "repeat_penalty": 1.2}, **options
    )
    choice, usage = response.choices[0], response.usage
    assert isinstance(choice, Choice)
    assert isinstance(choice.message, Message)
    assert isinstance(usage, Usage)
    assert choice.message.content == expected.choices[0].message.content
    assert (choice.index, choice.message.role) == (0, "assistant")
    assert choice.finish_reason == expected.choices[0].finish_reason
    assert usage.prompt_tokens == expected.usage.prompt_tokens
    assert usage.completion_tokens == expected.usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert response.object == "chat.completion"
    assert response.id
    assert response.created
    assert response.model


def test_chat_completion_stream_adds_up(client: LlamaCppClient):
    """chat_completion_stream(messages, **kwargs), and stream=True, give the same."""
    options = {"max_tokens": 20, "temperature": 0.0}
    whole = client.chat_completion(HELLO, **options).choices[0].message.content
    for chunks in (
        list(client.chat_completion_stream(messages=HELLO, **options)),
        list(client.chat_completion(HELLO, stream=True, **options)),
    ):
        assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
        assert isinstance(chunks[0].choices[0], ChunkChoice)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert all(isinstance(choice.delta, Delta) for choice in chunks[0].choices)
        choices = [choice for chunk in chunks for choice in chunk.choices]
        assert "".join(choice.delta.content or "" for choice in choices) == whole
        assert choices[-1].finish_reason == "stop"
        assert choices[-1].index == 0
        assert chunks[0].object == "chat.completion.chunk"
        assert chunks[0].id
        assert chunks[0].created
        assert chunks[0].model


def test_completion(client: LlamaCppClient):
    """completion(prompt, max_tokens, temperature, stop, **kwargs)."""
    response = client.completion(
        prompt="Once upon", max_tokens=8, temperature=0.0, stop=["garden"], top_k=1
    )
    assert isinstance(response, CompletionResponse)
    assert response.choices[0].text.startswith(" a time")
    assert response.usage.completion_tokens <= 8


def test_embeddings(client: LlamaCppClient):
    """embeddings(input, model): a vector of length 1 per text."""
    response = client.embeddings(input=["Hello", "World"], model="demo")
    assert isinstance(response, EmbeddingResponse)
    assert (response.object, len(response.data)) == ("list", 2)
    assert [each.index for each in response.data] == [0, 1]
    assert isinstance(response.data[0], Embedding)
    assert response.data[0].object == "embedding"
    assert sum(x * x for x in response.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert response.usage.prompt_tokens == response.usage.total_tokens
    assert response.model
    assert len(client.embeddings("Hello").data) == 1


def test_tokens_and_back(client: LlamaCppClient):
    """tokenize(text) and detokenize(tokens)."""
    tokens = client.tokenize(text="Hello, world!").tokens
    assert tokens
    assert client.detokenize(tokens=tokens).content == "Hello, world!"


def answering(status: int, content: object) -> LlamaCppClient:
    """A client of a server that always answers this."""
    data = content if isinstance(content, str) else json.dumps(content)
    client = LlamaCppClient()
    client._client = httpx.Client(
        base_url="http://peer",
        transport=httpx.MockTransport(lambda request: httpx.Response(status, text=data)),
    )
    return client


def test_answers_of_llama_cpps_own_server_are_understood():
    """With the further fields of tools/server/README.md's example, which are left out."""
    content = {
        "choices": [
            {
                "finish_reason": "stop",
                "index": 0,
                "message": {"role": "assistant", "content": None, "reasoning_content": "x"},
            }
        ],
        "created": 1757141666,
        "model": "gpt-3.5-turbo",
        "system_fingerprint": "b6394",
        "object": "chat.completion",
        "usage": {"completion_tokens": 1, "prompt_tokens": 2, "total_tokens": 3},
        "id": "chatcmpl-x",
        "timings": {"cache_n": 236, "prompt_ms": 30.958},
    }
    response = answering(200, content).chat_completion(HELLO)
    assert response.choices[0].message.content == ""
    assert response.usage.total_tokens == 3


@pytest.mark.parametrize(
    ("status", "content", "kind", "text"),
    [
        (503, {"error": {"code": 503, "message": "Loading model"}}, ServerError, "Loading model"),
        (400, {"error": {"message": "no messages"}}, ClientError, "no messages"),
        (404, "not here", ClientError, "404: not here"),
        (200, "<html>", ClientError, "expected JSON"),
        (200, [], ClientError, "expected an object"),
        (200, {}, ClientError, "'id'"),
        (200, {"id": 3}, ClientError, r"answer\.id: expected str, found int"),
        (200, {"id": "", "created": 1, "model": "", "choices": {}}, ClientError, "choices"),
        (200, {"id": "", "created": 1, "model": "", "choices": [1]}, ClientError, r"\[0\]"),
    ],
)
def test_answers_of_another_kind(status: int, content: object, kind: type, text: str):
    """Each is an error of its kind that says what was expected."""
    with pytest.raises(kind, match=text):
        answering(status, content).chat_completion(HELLO)


def test_streams_that_fail():
    """An error among the chunks, one before them, and what is no JSON."""
    for status, content, kind in (
        (200, 'data: {"error": {"message": "out of blocks"}}\n\n', ServerError),
        (500, {"error": {"message": "oops"}}, ServerError),
        (200, "data: {\n\n", ClientError),
    ):
        with pytest.raises(kind):
            list(answering(status, content).chat_completion_stream(HELLO))
    assert list(answering(200, ": ping\n\ndata: [DONE]\n\n").chat_completion_stream(HELLO)) == []


def test_nobody_is_there():
    """ClientError says where."""
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:9"):
        LlamaCppClient("http://127.0.0.1:9").health()
