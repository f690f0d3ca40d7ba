"""LangChain's chat models over OpenAI's interface and over Ollama's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("langchain_ollama")

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

QUESTION = "What is the capital of France?"


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


@contextlib.contextmanager
def over_openai(url: str, **options: Any) -> Iterator[ChatOpenAI]:
    with httpx.Client() as http:
        yield ChatOpenAI(
            base_url=f"{url}/v1",
            api_key="none",
            model="demo",
            temperature=0,
            max_retries=0,
            stream_usage=True,
            http_client=http,
            **options,
        )


@contextlib.contextmanager
def over_ollama(url: str, name: str = "demo") -> Iterator[ChatOllama]:
    chat = ChatOllama(base_url=url, model=name, temperature=0)
    with chat._client._client:  # which it never closes itself
        yield chat


@pytest.fixture(params=[over_openai, over_ollama], ids=["openai", "ollama"])
def model(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    with request.param(url) as chat:
        yield chat


def test_an_answer_and_its_pieces(model: Any):
    """The pieces of a stream are the whole; both count their tokens."""
    whole = model.invoke(QUESTION)
    assert "Paris" in whole.content
    assert whole.usage_metadata["output_tokens"] > 1
    pieces = list(model.stream(QUESTION))
    assert len([piece for piece in pieces if piece.content]) > 1
    joined = sum(pieces[1:], pieces[0])
    assert joined.content == whole.content
    assert joined.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


def test_a_tool_is_called_and_its_result_read(model: Any):
    """The demo model calls the tool it is shown, with arguments of its schema."""
    with_tools = model.bind_tools([get_weather])
    asked = HumanMessage("What is the weather in Paris?")
    called = with_tools.invoke([asked])
    assert isinstance(called, AIMessage)
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    assert "sunny" in with_tools.invoke([asked, called, result]).content
    streamed = list(with_tools.stream([asked]))
    [again] = sum(streamed[1:], streamed[0]).tool_calls
    assert again["args"] == call["args"]


def test_structured_output_fits_its_schema(model: Any):
    """Through response_format and through format."""
    schema = {
        "title": "city",
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}},
        "required": ["name"],
        "additionalProperties": False,
    }
    found = model.with_structured_output(schema, method="json_schema").invoke(QUESTION)
    assert isinstance(found["name"], str)


def test_the_responses_interface_answers(url: str):
    """What LangChain uses for the newer models."""
    with over_openai(url, use_responses_api=True) as chat:
        assert "Paris" in chat.invoke(QUESTION).text


def test_a_refusal_reaches_the_caller(url: str):
    """With the reason."""
    with over_ollama(url, "absent") as chat, pytest.raises(ollama.ResponseError, match="absent"):
        chat.invoke(QUESTION)
