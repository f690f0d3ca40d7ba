"""Tools and response formats with the official client, on the packaged model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import openai
import pytest

from quintet import AsyncLLM

from .harness import run, serving

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 24}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": None,
        "parameters": SCHEMA,
        "strict": True,
    },
}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY: Any = {"model": "demo", "temperature": 0, "max_tokens": 96}


@contextlib.asynccontextmanager
async def demo() -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of a server with the packaged model."""
    async with (
        AsyncLLM("demo", num_threads=1) as llm,
        serving({"demo": llm}) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_required_call_comes_whole_and_in_pieces(choice: Any):
    """The client finds the same call in a reply and in a stream, and may send it back."""

    async def main() -> None:
        async with demo() as client:
            options = {
                **GREEDY,
                "tools": [WEATHER],
                "tool_choice": choice,
                "parallel_tool_calls": False,
            }
            reply = await client.chat.completions.create(messages=QUESTION, **options)
            (whole,) = reply.choices
            assert whole.finish_reason == "tool_calls"
            assert whole.message.content is None
            (call,) = whole.message.tool_calls
            assert call.function.name == "get_weather"
            jsonschema.validate(json.loads(call.function.arguments), SCHEMA)

            stream = await client.chat.completions.create(messages=QUESTION, stream=True, **options)
            choices = [chunk.choices[0] async for chunk in stream]
            deltas = [d for c in choices for d in c.delta.tool_calls or ()]
            assert choices[0].delta.role == "assistant"
            assert choices[-1].finish_reason == "tool_calls"
            assert not any(c.delta.content for c in choices)
            assert {d.index for d in deltas} == {0}
            assert [d.function.name for d in deltas if d.id] == ["get_weather"]
            assert all(isinstance(d.function.arguments, str) for d in deltas)
            assert "".join(d.function.arguments for d in deltas) == call.function.arguments

            history = [
                *QUESTION,
                whole.message.model_dump(exclude_none=True),
                {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"},
            ]
            follow_up = await client.chat.completions.create(
                messages=history, tools=[WEATHER], tool_choice="none", **GREEDY
            )
            assert follow_up.choices[0].message.content
            assert follow_up.choices[0].message.tool_calls is None

    run(main())


def test_several_calls_have_an_index_each():
    """Parallel calls come under 0, 1, 2..., whole and streamed."""

    async def main() -> None:
        async with demo() as client:
            options = {**GREEDY, "max_tokens": 160, "tools": [WEATHER], "tool_choice": "required"}
            # A bias against the end of the answer makes a second call the likeliest way on.
            options["extra_body"] = {"logit_bias": {str(i): -100 for i in await _ending_ids()}}
            reply = await client.chat.completions.create(messages=QUESTION, **options)
            calls = reply.choices[0].message.tool_calls
            assert len(calls) > 1
            assert len({call.id for call in calls}) == len(calls)
            stream = await client.chat.completions.create(messages=QUESTION, stream=True, **options)
            indices = [
                delta.index
                async for chunk in stream
                for delta in chunk.choices[0].delta.tool_calls or ()
                if delta.id
            ]
            assert indices == list(range(len(calls)))

    run(main())


async def _ending_ids() -> frozenset[int]:
    """Of the packaged model."""
    async with AsyncLLM("demo", num_threads=1) as llm:
        return llm.tokenizer.eog_ids


@pytest.mark.parametrize(
    "format_",
    [
        {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA, "strict": True}},
        {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}},
        {"type": "json_object", "schema": SCHEMA},
    ],
)
def test_a_response_format_is_kept(format_: Any):
    """The answer is JSON of that schema, in a reply and in a stream."""

    async def main() -> None:
        async with demo() as client:
            options = {**GREEDY, "temperature": 1.5, "seed": 7, "response_format": format_}
            reply = await client.chat.completions.create(messages=QUESTION, **options)
            assert reply.choices[0].finish_reason == "stop"
            jsonschema.validate(json.loads(reply.choices[0].message.content), SCHEMA)
            stream = await client.chat.completions.create(messages=QUESTION, stream=True, **options)
            text = "".join([c.choices[0].delta.content or "" async for c in stream])
            assert text == reply.choices[0].message.content

    run(main())


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
            "response_format",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}},
         "tool_choice"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "g", "parameters": {"$ref": "http://localhost/x"}},
                    }
                ],
                "tool_choice": "required",
            },
            "tools",
        ),
        (
            {"tools": [WEATHER], "tool_choice": "required",
             "response_format": {"type": "json_object"}},
            "tool_choice",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_a_400(fields: Any, param: str, is_stream: bool):
    """A schema or tool that makes no sense is refused with a status, naming the field."""

    async def main() -> None:
        async with demo() as client:
            with pytest.raises(openai.BadRequestError) as error:
                await client.chat.completions.create(
                    messages=QUESTION, stream=is_stream, **{**GREEDY, **fields}
                )
            assert error.value.param == param

    run(main())
