"""LangChain's classes, asked through LangChain."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from densecore import DenseCore
from densecore.exceptions import InvalidConfigError, ModelLoadError

pytest.importorskip("langchain_core")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

from densecore.integrations import DenseCoreChatModel, DenseCoreEmbeddings

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def chat(own_store: Path) -> DenseCoreChatModel:
    """The demo model, greedy."""
    return DenseCoreChatModel(model_path="demo", temperature=0, max_tokens=60)


def test_invoke_is_densecores_answer(chat: DenseCoreChatModel, model: DenseCore):
    """The same answer as from DenseCore.chat; usage and end are told."""
    expected = model.chat([{"role": "user", "content": QUESTION}], max_tokens=60, temperature=0)
    message = chat.invoke(QUESTION)
    assert message.content == expected
    assert message.response_metadata["finish_reason"] == "stop"
    usage = message.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    conversation = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello!")]
    assert chat.invoke([*conversation, HumanMessage(QUESTION)]).content


def test_stream_adds_up(chat: DenseCoreChatModel):
    """Chunks are the answer in pieces, async as well."""

    async def read() -> list[str]:
        return [chunk.text async for chunk in chat.astream(QUESTION)]

    chunks = list(chat.stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == chat.invoke(QUESTION).text
    assert len(chunks) > 3
    assert "".join(asyncio.run(read())) == chat.invoke(QUESTION).text
    assert asyncio.run(chat.ainvoke(QUESTION)).text == chat.invoke(QUESTION).text


def test_it_is_part_of_a_chain(chat: DenseCoreChatModel):
    """Prompt, model, parser; several at once."""
    chain = ChatPromptTemplate.from_template("{question}") | chat | StrOutputParser()
    answers = chain.batch([{"question": QUESTION}, {"question": "Hello!"}])
    assert answers[0] == chat.invoke(QUESTION).content
    assert answers[1]


def test_stop_and_parameters_act(chat: DenseCoreChatModel):
    """Of the call, and of the model."""
    whole = chat.invoke(QUESTION).text
    assert chat.invoke(QUESTION, stop=["Paris"]).text == whole.split("Paris")[0]
    stopping = DenseCoreChatModel(model_path="demo", temperature=0, stop_sequences=["Paris"])
    assert stopping.invoke(QUESTION).text == whole.split("Paris")[0]
    short = chat.invoke(QUESTION, max_tokens=2)
    assert short.usage_metadata["output_tokens"] == 2
    assert short.response_metadata["finish_reason"] == "length"
    with pytest.raises(InvalidConfigError):
        chat.invoke(QUESTION, temperature=-1)
    assert isinstance(json.loads(chat.invoke("A person as JSON.", json_mode=True).text), dict)


def test_tools_are_called(chat: DenseCoreChatModel):
    """A bound tool comes back as a call with an object; its result can be sent."""

    @tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    bound = chat.bind_tools([get_weather], tool_choice="get_weather")
    message = bound.invoke("What is the weather in Paris?")
    (call,) = message.tool_calls
    assert call["name"] == "get_weather"
    assert set(call["args"]) == {"city"}
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    question = HumanMessage("What is the weather in Paris?")
    assert chat.bind_tools([get_weather], tool_choice="none").invoke([question, message, result])
    total = None
    for chunk in bound.stream("What is the weather in Paris?"):
        total = chunk if total is None else total + chunk
    assert [each["args"] for each in total.tool_calls] == [call["args"]]


def test_a_missing_model_is_told():
    """With the first message."""
    with pytest.raises(ModelLoadError):
        DenseCoreChatModel(model_path="nonexistent.gguf").invoke("x")


def test_embeddings_are_densecores(model: DenseCore):
    """Lists of numbers, the same as arrays."""
    embeddings = DenseCoreEmbeddings("demo", pooling_strategy="last")
    found = embeddings.embed_documents(["one", "two"])
    assert np.array_equal(np.array(found, np.float32), model.embed_batch(["one", "two"], "last"))
    assert embeddings.embed_query("one") == found[0]
    assert asyncio.run(embeddings.aembed_query("one")) == found[0]
