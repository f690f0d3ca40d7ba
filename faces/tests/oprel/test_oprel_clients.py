"""Functions, clients and answers, against the daemon and beside Ollama's own client."""

from __future__ import annotations

import asyncio
import json

import ollama
import pytest

import oprel
from oprel import AsyncClient, Client, HTTPClient
from oprel.core.exceptions import (
    BackendError,
    ModelNotFoundError,
    OprelError,
    ValidationError,
)
from oprel.responses import Message

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def client() -> Client:
    with Client() as client:
        yield client


@pytest.fixture(scope="module")
def theirs(client: Client) -> ollama.Client:
    """Ollama's client of the same daemon."""
    client.list()  # starts it
    with ollama.Client(host=client.host) as client_:
        yield client_


def test_chat_by_attribute_and_by_item():
    """An answer's parts are attributes and items; it says when it is done, and from when it is."""
    response = oprel.chat(model="demo", messages=MESSAGES, options=GREEDY)
    assert isinstance(response, oprel.ChatResponse)
    assert isinstance(response.message, oprel.Message)
    assert "Paris" in response.message.content
    assert response["message"]["content"] == response.message.content
    assert (response.message.role, response.done, response.model) == ("assistant", True, "demo")
    assert response.created_at.endswith("Z")
    assert response.message.images is None
    assert json.loads(json.dumps(response)) == response.model_dump()
    with pytest.raises(AttributeError):
        _ = response.nothing


def test_streams_are_the_whole_in_pieces():
    """Chat and generate stream what they give at once."""
    chat = list(oprel.chat(model="demo", messages=MESSAGES, stream=True, options=GREEDY))
    whole = oprel.chat(model="demo", messages=MESSAGES, options=GREEDY)
    assert "".join(chunk.message.content for chunk in chat) == whole.message.content
    assert [chunk.done for chunk in chat] == [False] * (len(chat) - 1) + [True]
    pieces = list(oprel.generate(model="demo", prompt=QUESTION, stream=True, options=GREEDY))
    generated = oprel.generate(model="demo", prompt=QUESTION, options=GREEDY)
    assert isinstance(generated, oprel.GenerateResponse)
    assert "".join(chunk.response for chunk in pieces) == generated.response


def test_options_by_both_names(client: Client):
    """max_tokens is num_predict."""
    for name in ("max_tokens", "num_predict"):
        found = client.generate("demo", QUESTION, options={name: 2, "temperature": 0})
        assert (found.eval_count, found.done_reason) == (2, "length")


def test_ollamas_client_gets_the_same(client: Client, theirs: ollama.Client):
    """Greedy answers, lists, facts and vectors are equal, field by field but for times."""
    options = {"temperature": 0, "num_predict": 12}
    ours = client.chat("demo", MESSAGES, options=options)
    other = theirs.chat("demo", MESSAGES, options=options)
    assert ours.message.content == other.message.content
    assert ours.eval_count == other.eval_count
    generated = client.generate("demo", QUESTION, options=options)
    assert generated.response == theirs.generate("demo", QUESTION, options=options).response
    assert [m.name for m in client.list().models] == [m.model for m in theirs.list().models]
    assert client.list().models[0].size == theirs.list().models[0].size
    assert client.show("demo").template == theirs.show("demo").template
    assert client.show("demo").modelinfo == theirs.show("demo").modelinfo
    assert [m.name for m in client.ps().models] == [m.model for m in theirs.ps().models]
    texts = ["one", "two"]
    assert client.embed("demo", texts).embeddings == [
        list(vector) for vector in theirs.embed("demo", texts).embeddings
    ]
    assert client.embeddings("demo", "one").embedding == list(
        theirs.embeddings("demo", "one").embedding
    )
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answers = [
        each.chat("demo", MESSAGES, format=schema, options=options).message.content
        for each in (client, theirs)
    ]
    assert answers[0] == answers[1]


def test_list_and_show():
    """What there is, and what it is."""
    models = oprel.list()
    assert all(isinstance(model, oprel.ModelInfo) for model in models.models)
    assert isinstance(models, oprel.ListResponse)
    (demo,) = [model for model in models.models if model.name == "demo:latest"]
    assert demo.size > 1_000_000
    assert demo.modified_at
    assert demo["details"]["family"] == demo.details.family == "qwen3"
    info = oprel.show("demo")
    assert isinstance(info, oprel.ShowResponse)
    assert info.modelfile.startswith("#") or "FROM" in info.modelfile
    assert "messages" in info.template
    assert info.parameters == ""


def test_create_copy_delete(client: Client, theirs: ollama.Client):
    """A Modelfile makes a model that answers by it; a copy is the same; both can be deleted."""
    modelfile = "FROM demo\nPARAMETER num_predict 3\nPARAMETER temperature 0\nSYSTEM Be brief."
    made = oprel.create(model="brief", modelfile=modelfile)
    assert made["status"] == made.status == "success"
    assert "num_predict" in oprel.show("brief").parameters
    assert oprel.show("brief").system == "Be brief."
    assert client.generate("brief", QUESTION).eval_count == 3
    statuses = [step.status for step in client.create("other", from_="demo", stream=True)]
    assert statuses[-1] == "success"
    assert oprel.copy("brief", "copy")["status"] == "success"
    assert {"brief:latest", "copy:latest", "other:latest"} <= {
        m.model for m in theirs.list().models
    }
    for name in ("brief", "copy", "other"):
        deleted = oprel.delete(name)
        assert isinstance(deleted, dict), "a Dict"
        assert deleted["status"] == "success"
    with pytest.raises(ModelNotFoundError) as caught:
        client.show("brief")
    assert caught.value.status_code == 404
    with pytest.raises(ValidationError, match="line 1"):
        client.create("broken", "NONSENSE")


def test_create_reads_a_modelfile_by_its_path(client: Client, tmp_path):
    """A path does as well as a text."""
    path = tmp_path / "Modelfile"
    path.write_text("FROM demo\nSYSTEM From a file.\n")
    client.create("filed", str(path))
    assert client.show("filed").system == "From a file."
    client.delete("filed")


def test_errors_are_oprels(client: Client):
    """Unknown models, wrong options, an address where nobody is, no address."""
    with pytest.raises(ModelNotFoundError):
        client.generate("nonexistent", "a")
    with pytest.raises(ModelNotFoundError):
        list(client.chat("nonexistent", MESSAGES, stream=True))
    with pytest.raises(ModelNotFoundError):
        client.pull("nonexistent")
    with pytest.raises(ValidationError) as caught:
        client.generate("demo", "a", options={"temperature": "hot"})
    assert caught.value.status_code == 400
    with pytest.raises(BackendError, match="no answer"), Client("http://127.0.0.1:9") as nobody:
        nobody.list()
    with pytest.raises(ValidationError):
        Client("ftp://example")
    assert oprel.ResponseError is OprelError


def test_messages_and_tools_as_objects(client: Client):
    """Messages may be records; functions become tools by their signatures."""

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    message = Message(role="user", content="What is 2 + 2?")
    answer = client.chat("demo", [message], tools=[add], options=GREEDY)
    assert answer.message.content or answer.message.tool_calls


def test_the_asynchronous_client_gives_the_same(client: Client):
    """Every call of Client is there, awaitable; answers are equal."""

    async def main() -> None:
        async with AsyncClient() as api:
            whole = await api.chat("demo", MESSAGES, options=GREEDY)
            stream = await api.chat("demo", MESSAGES, stream=True, options=GREEDY)
            pieces = [chunk.message.content async for chunk in stream]
            ours = client.chat("demo", MESSAGES, options=GREEDY).message.content
            assert whole.message.content == "".join(pieces) == ours
            generated = await api.generate("demo", QUESTION, options=GREEDY)
            assert generated.response == client.generate("demo", QUESTION, options=GREEDY).response
            assert await api.list() == client.list()
            assert (await api.ps()).models[0].name == "demo:latest"
            assert await api.show("demo") == client.show("demo")
            assert await api.embed("demo", "one") is not None
            vector = (await api.embeddings("demo", "one")).embedding
            assert vector == client.embeddings("demo", "one").embedding
            assert (await api.create("made", "FROM demo")).status == "success"
            assert (await api.copy("made", "twin")).status == "success"
            assert (await api.delete("made")).status == "success"
            await api.delete("twin")
            with pytest.raises(ModelNotFoundError):
                await api.pull("nonexistent")
            answers = await asyncio.gather(
                *(api.generate("demo", QUESTION, options=GREEDY) for _ in range(4))
            )
            assert len({answer.response for answer in answers}) == 1

    asyncio.run(main())


def test_http_client(client: Client):
    """Endpoints as Oprel has them, and Ollama's; whole answers unless streamed; health."""
    client.list()
    with HTTPClient() as http:
        body = {"model": "demo", "prompt": QUESTION, "options": {"temperature": 0}}
        assert "Paris" in http.post("/generate", json=body).json()["response"]
        assert "Paris" in http.post("/api/generate", json=body).json()["response"]
        lines = http.post("/generate", json={**body, "stream": True}).text.splitlines()
        assert len(lines) > 2
        assert http.get("/tags").json() == client.list()
        assert http.get("/api/version").status_code == 200
        assert http.delete("/delete", json={"model": "none"}).status_code == 404
        assert http.health_check()
    with HTTPClient(base_url="http://127.0.0.1:9") as nobody:
        assert not nobody.health_check()
        with pytest.raises(BackendError):
            nobody.get("/tags")
