"""The Responses interface with the official client: events, conversations, background, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import openai
import pydantic
import pytest

from quintet import AsyncLLM
from quintet.engine.output import OutputChunk, Usage
from quintet.errors import CapacityError, ContextLengthError, RequestError
from quintet.parsing.events import ToolCallDelta
from quintet.server.bodies import parse_body
from quintet.server.dialects.openai.responses.bodies import TurnBody
from quintet.server.dialects.openai.responses.items import input_items

from .fake import FakeEngine
from .harness import run, serving, until

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 24}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@contextlib.asynccontextmanager
async def client(engine: Any, **settings: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """Of a server with one model."""
    async with (
        serving({"m": engine}, **settings) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api,
    ):
        yield api


async def post(api: openai.AsyncOpenAI, body: Any, path: str = "/responses") -> httpx.Response:
    """A raw reply, whatever its status."""
    async with httpx.AsyncClient() as http:
        return await http.post(f"{str(api.base_url).rstrip('/')}{path}", json=body)


class ScriptedEngine(FakeEngine):
    """Thinks, speaks and calls."""

    async def _run(self, prompt: Any, params: Any) -> Any:
        self.prompts.append(prompt)
        yield OutputChunk("r", reasoning="Hm", token_ids=(1,))
        yield OutputChunk("r", reasoning=", yes", token_ids=(1,))
        yield OutputChunk("r", text="Well", token_ids=(1,))
        yield OutputChunk("r", text=".", token_ids=(1,))
        calls = (ToolCallDelta(0, id="call_a", name="f"), ToolCallDelta(0, '{"x"'))
        yield OutputChunk("r", tool_calls=calls, token_ids=(1,))
        calls = (ToolCallDelta(0, ": 1}"), ToolCallDelta(1, "{}", id="call_b", name="g"))
        yield OutputChunk("r", tool_calls=calls, token_ids=(1,))
        usage = Usage(7, 3, 7, num_reasoning_tokens=2)
        yield OutputChunk("r", token_ids=(0,), finish_reason="stop", usage=usage)


def test_events_come_in_openai_s_order():
    """Every item opens, grows, is whole and closes; the numbers have no gap."""

    async def main() -> None:
        async with client(ScriptedEngine()) as api:
            stream = await api.responses.create(model="m", input="Hi", stream=True)
            events = [event async for event in stream]
            whole = await api.responses.create(model="m", input="Hi")
        text = ["content_part.added", "{}.delta", "{}.delta", "{}.done", "content_part.done"]
        item = ["output_item.added", *text, "output_item.done"]
        arguments = "function_call_arguments"
        call = ["output_item.added", f"{arguments}.delta", f"{arguments}.done", "output_item.done"]
        assert [event.type.removeprefix("response.") for event in events] == [
            "created",
            "in_progress",
            *(name.format("reasoning_text") for name in item),
            *(name.format("output_text") for name in item),
            *call[:2],
            *call[1:],
            *call,
            "completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].response.status == "in_progress"
        assert events[0].response.output == []
        added = [event for event in events if event.type == "response.output_item.added"]
        done = [event for event in events if event.type == "response.output_item.done"]
        assert [event.output_index for event in added] == [0, 1, 2, 3]
        assert [event.item.id for event in added] == [event.item.id for event in done]
        assert {event.item.status for event in added} == {"in_progress"}
        final = events[-1].response
        assert [event.item for event in done] == final.output
        for output in (final.output, whole.output):
            thought, message, first, second = output
            assert thought.content[0].text == "Hm, yes"
            assert message.content[0].text == "Well."
            assert (first.name, first.call_id, first.arguments) == ("f", "call_a", '{"x": 1}')
            assert (second.name, second.call_id, second.arguments) == ("g", "call_b", "{}")
            assert {item.status for item in output} == {"completed"}
        assert final.usage.input_tokens_details.cached_tokens == 3
        assert final.usage.output_tokens_details.reasoning_tokens == 2
        assert final.usage.total_tokens == 14
        assert final.status == whole.status == "completed"

    run(main())


def test_each_event_is_named_on_the_wire():
    """`event:` repeats the type, there is no [DONE], and deltas carry an empty list of logprobs."""

    async def main() -> None:
        async with client(FakeEngine()) as api:
            reply = await post(api, {"model": "m", "input": "Hi", "stream": True})
        frames = reply.text.strip().split("\n\n")
        for frame in frames:
            name, data = frame.split("\n")
            assert name == "event: " + json.loads(data.removeprefix("data: "))["type"]
        assert frames[-1].startswith("event: response.completed\n")
        deltas = [json.loads(f.split("data: ")[1]) for f in frames if "output_text.delta" in f]
        assert all(
            {"item_id", "output_index", "content_index", "logprobs"} <= delta.keys()
            for delta in deltas
        )

    run(main())


def test_the_client_puts_a_stream_together():
    """Its helpers find the text, the parsed answer and the calls of the packaged model."""

    class Place(pydantic.BaseModel):
        city: str = pydantic.Field(max_length=16)

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            options: Any = {"model": "m", "temperature": 0, "max_output_tokens": 96}
            question = "What is the weather in Paris?"
            reply = await api.responses.create(input=question, instructions="Be brief.", **options)
            assert reply.output_text
            async with api.responses.stream(
                input=question, instructions="Be brief.", **options
            ) as stream:
                text = "".join(
                    [e.delta async for e in stream if e.type == "response.output_text.delta"]
                )
                assert text == (await stream.get_final_response()).output_text == reply.output_text
            parsed = await api.responses.parse(input=question, text_format=Place, **options)
            assert isinstance(parsed.output_parsed, Place)
            tools: Any = {"tools": [WEATHER], "parallel_tool_calls": False}
            for choice in ("required", {"type": "function", "name": "get_weather"}):
                called = await api.responses.create(
                    input=question, tool_choice=choice, **tools, **options
                )
                (call,) = [item for item in called.output if item.type == "function_call"]
                assert call.name == "get_weather"
                jsonschema.validate(json.loads(call.arguments), WEATHER["parameters"])
            result: Any = {
                "type": "function_call_output", "call_id": call.call_id, "output": "sunny",
            }  # fmt: skip
            answer = await api.responses.create(
                input=[result], previous_response_id=called.id, tool_choice="none", **tools,
                **options,
            )  # fmt: skip
            assert answer.output_text
            again = await api.responses.create(
                input=[{"role": "user", "content": question}, *called.output, result],
                tool_choice="none", **tools, **options,
            )  # fmt: skip
            assert again.output_text == answer.output_text
            count = await api.responses.input_tokens.count(model="m", input=question)
            assert count.input_tokens < reply.usage.input_tokens

    run(main())


def test_a_conversation_goes_on_from_a_response():
    """The history is put together from what is kept; instructions are not carried over."""

    async def main() -> None:
        engine = ScriptedEngine()
        async with client(engine) as api:
            first = await api.responses.create(model="m", input="one", instructions="Rules.")
            items: Any = [
                {"type": "function_call_output", "call_id": "call_a", "output": "1"},
                {"type": "function_call_output", "call_id": "call_b",
                 "output": [{"type": "input_text", "text": "2"}]},
                {"role": "developer", "content": [{"type": "input_text", "text": "now"}]},
            ]  # fmt: skip
            second = await api.responses.create(
                model="m", input=items, previous_response_id=first.id, instructions="Others."
            )
            messages = engine.prompts[-1][0]
            assert messages == [
                {"role": "system", "content": "Others."},
                {"role": "user", "content": "one"},
                {
                    "role": "assistant",
                    "content": "Well.",
                    "reasoning_content": "Hm, yes",
                    "tool_calls": [
                        {"id": "call_a", "type": "function",
                         "function": {"name": "f", "arguments": {"x": 1}}},
                        {"id": "call_b", "type": "function",
                         "function": {"name": "g", "arguments": {}}},
                    ],
                },
                {"role": "tool", "tool_call_id": "call_a", "content": "1"},
                {"role": "tool", "tool_call_id": "call_b", "content": "2"},
                {"role": "system", "content": "now"},
            ]  # fmt: skip
            assert second.previous_response_id == first.id
            got = await api.responses.retrieve(first.id)
            assert got.output == first.output
            assert got.instructions == "Rules."
            listed = [item async for item in await api.responses.input_items.list(second.id)]
            assert [item.type for item in listed] == [
                "message", "function_call_output", "function_call_output",
            ]  # fmt: skip
            page = await api.responses.input_items.list(second.id, limit=1, order="asc")
            assert page.has_more
            assert page.data[0].call_id == "call_a"
            await api.responses.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                await api.responses.retrieve(first.id)
            with pytest.raises(openai.BadRequestError) as caught:
                await api.responses.create(model="m", input="x", previous_response_id=first.id)
            assert caught.value.code == "previous_response_not_found"
            third = await api.responses.create(model="m", input="x", previous_response_id=second.id)
            assert third.status == "completed"
            forgotten = await api.responses.create(model="m", input="x", store=False)
            with pytest.raises(openai.NotFoundError):
                await api.responses.retrieve(forgotten.id)

    run(main())


def test_an_agent_s_request_is_served():
    """What Codex sends with every turn: tools that only OpenAI runs are left out, not refused."""

    async def main() -> None:
        engine = FakeEngine()
        async with client(engine) as api:
            reply = await post(
                api,
                {
                    "model": "m",
                    "instructions": "You are an agent.",
                    "input": [
                        {"type": "message", "role": "developer",
                         "content": [{"type": "input_text", "text": "sandboxed"}]},
                        {"type": "message", "role": "user",
                         "content": [{"type": "input_text", "text": "List files."}]},
                        {"type": "reasoning", "summary": [], "content": None,
                         "encrypted_content": None},
                        {"type": "function_call", "name": "exec_command", "arguments": "{}",
                         "call_id": "c1"},
                        {"type": "function_call_output", "call_id": "c1", "output": "README"},
                    ],
                    "tools": [
                        {"type": "function", "name": "exec_command", "strict": False,
                         "description": "Runs", "parameters": {"type": "object", "properties": {}}},
                        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
                        {"type": "web_search", "external_web_access": False},
                        {"type": "namespace", "name": "mcp", "description": "", "tools": [
                            {"type": "function", "name": "find"}, {"type": "custom", "name": "x"},
                        ]},
                    ],
                    "tool_choice": "auto",
                    "parallel_tool_calls": False,
                    "reasoning": {"effort": "medium", "summary": "auto"},
                    "store": False,
                    "stream": True,
                    "include": ["reasoning.encrypted_content"],
                    "prompt_cache_key": "x",
                    "text": {"verbosity": "low"},
                    "client_metadata": {"a": "b"},
                },
            )  # fmt: skip
        messages, tools, _ = engine.prompts[0]
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
        assert messages[0]["content"] == "You are an agent.\n\nsandboxed"
        assert [tool["function"]["name"] for tool in tools] == ["exec_command", "find"]
        final = json.loads(reply.text.split("data: ")[-1])
        assert final["type"] == "response.completed"
        assert [tool["name"] for tool in final["response"]["tools"]] == ["exec_command", "mcp"]

    run(main())


def test_functions_of_a_namespace_keep_it():
    """The model knows a name alone, or with its namespace where two have the same one."""
    inner = {"type": "function", "name": "f"}

    async def main() -> None:
        engine = ScriptedEngine()
        async with client(engine) as api:
            tools: Any = [
                {"type": "namespace", "name": "one", "description": "", "tools": [inner]},
                {"type": "namespace", "name": "two", "description": "", "tools": [inner]},
                {"type": "function", "name": "g", "parameters": {}, "strict": False},
            ]
            reply = await api.responses.create(model="m", input="Hi", tools=tools)
            calls = [item for item in reply.output if item.type == "function_call"]
            assert [(c.namespace, c.name) for c in calls] == [("one", "f"), (None, "g")]
            assert [tool.type for tool in reply.tools] == ["namespace", "namespace", "function"]
            call: Any = {
                "type": "function_call", "call_id": "c", "name": "f", "namespace": "two",
                "arguments": "{}",
            }  # fmt: skip
            await api.responses.create(model="m", input=[*reply.output, call], tools=tools)
        messages, offered, _ = engine.prompts[-1]
        assert [tool["function"]["name"] for tool in offered] == ["f", "two.f", "g"]
        called = [call["function"]["name"] for call in messages[-1]["tool_calls"]]
        assert called == ["f", "g", "two.f"]

    run(main())


def test_a_cut_answer_is_incomplete():
    """Its last item is, too; the client is told why."""

    async def main() -> None:
        async with client(FakeEngine()) as api:
            stream = await api.responses.create(
                model="m", input="Hi", max_output_tokens=2, stream=True
            )
            events = [event async for event in stream]
        assert events[-1].type == "response.incomplete"
        final = events[-1].response
        assert final.incomplete_details.reason == "max_output_tokens"
        assert [item.status for item in final.output] == ["incomplete"]
        assert final.output_text == "Hello wor"
        assert final.usage.output_tokens == 2

    run(main())


def test_errors_are_statuses_first_and_events_later():
    """A refusal is a real HTTP error; a failure in the middle ends the stream with its event."""

    async def main() -> None:
        for error, kind in (
            (ContextLengthError(5000, 4096), openai.BadRequestError),
            (CapacityError("full", resource="queue", retry_after_s=2), openai.InternalServerError),
        ):
            async with client(FakeEngine(error=error)) as api:
                for stream in (False, True):
                    with pytest.raises(kind):
                        await api.responses.create(model="m", input="Hi", stream=stream)
        async with client(FakeEngine(error_after=2)) as api:
            events = [
                event
                async for event in await api.responses.create(model="m", input="Hi", stream=True)
            ]
            assert events[-1].type == "response.failed"
            assert events[-1].sequence_number == len(events) - 1
            failed = events[-1].response
            assert (failed.status, failed.error.code) == ("failed", "server_error")
            assert failed.output[0].status == "incomplete"
            with pytest.raises(openai.InternalServerError):
                await api.responses.create(model="m", input="Hi")

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_ends_the_response(stream: bool):
    """A client that leaves frees the engine within a step."""

    async def main() -> None:
        engine = FakeEngine((1, 2) * 50, is_gated=True)
        async with client(engine) as api:
            body = {"model": "m", "input": "Hi", "stream": stream}
            async with httpx.AsyncClient() as http:
                asking = http.stream("POST", f"{api.base_url}responses", json=body)
                reading = _background(asking)
                await until(lambda: engine.num_running == 1)
                engine.permit(3)
                await until(lambda: engine.num_steps == 3)
                reading.cancel()
            await until(lambda: engine.num_running == 0)
            assert engine.num_steps == 3
            assert engine.num_aborted == 1

    run(main())


def _background(asking: Any) -> Any:
    async def read() -> None:
        async with asking as reply:
            async for _ in reply.aiter_bytes():
                pass

    return asyncio.ensure_future(read())


def test_a_response_in_the_background_can_be_polled_and_called_off():
    """It goes on without its client, and stops within a step when told to."""

    async def main() -> None:
        engine = FakeEngine((1, 2, 3), is_gated=True)
        async with client(engine) as api:
            first = await api.responses.create(model="m", input="Hi", background=True)
            assert first.status == "queued"
            engine.permit(100)
            while (got := await api.responses.retrieve(first.id)).status != "completed":
                pass
            assert got.output_text == "Hello world"
            assert (await api.responses.cancel(first.id)).status == "completed"
        engine = FakeEngine((1, 2) * 50, is_gated=True)
        async with client(engine) as api:
            second = await api.responses.create(model="m", input="Hi", background=True)
            engine.permit(2)
            await until(lambda: engine.num_steps == 2)
            assert (await api.responses.cancel(second.id)).status == "cancelled"
            assert engine.num_running == 0
            assert (await api.responses.retrieve(second.id)).output_text == "Hello wor"
            third = await api.responses.create(model="m", input="Hi", background=True)
            await until(lambda: engine.num_running == 1)
            await api.responses.delete(third.id)
            assert engine.num_running == 0
            with pytest.raises(openai.NotFoundError):
                await api.responses.retrieve(third.id)
            plain = api.responses.create(model="m", input="Hi", max_output_tokens=1)
            engine.permit(1)
            with pytest.raises(openai.BadRequestError):
                await api.responses.cancel((await plain).id)
        async with client(FakeEngine(error_after=1)) as api:
            late = await api.responses.create(model="m", input="Hi", background=True)
            while (got := await api.responses.retrieve(late.id)).status != "failed":
                pass
            assert got.error.code == "server_error"

    run(main())


@pytest.mark.parametrize(
    ("value", "parameter"),
    [
        (1, "input"),
        ([{"role": "user", "content": "x"}, {"role": "wizard", "content": "x"}], "input.1.role"),
        ([{"role": "user", "content": 5}], "input.0.content"),
        ([{"role": "user"}], "input.0.content"),
        ([{"type": "function_call", "call_id": "c", "name": "f"}], "input.0.arguments"),
        ([{"type": "function_call_output", "call_id": 1}], "input.0.call_id"),
        ([{"type": "reasoning", "summary": "x"}], "input.0.summary"),
    ],
)
def test_errors_name_the_item_at_fault(value: Any, parameter: str):
    """A long history is of no use to somebody who looks for the mistake in it."""
    with pytest.raises(RequestError) as caught:
        input_items(parse_body(TurnBody, {"model": "m", "input": value}))
    assert caught.value.parameter == parameter


NESTED: Any = "x"
for _ in range(70):
    NESTED = [NESTED]

BAD: list[tuple[dict[str, Any], int]] = [
    (fields, 400)
    for fields in (
        {"input": None}, {"input": []}, {"input": 1}, {"input": [1]}, {"input": [{}]},
        {"input": NESTED}, {"input": [{"role": "wizard", "content": "x"}]},
        {"input": [{"role": "user"}]}, {"input": [{"role": "user", "content": 5}]},
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f"}]},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "["}]},
        {"input": [{"type": "function_call_output", "output": "x"}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"type": "web_search_call", "id": "x"}]},
        {"input": [{"role": "user", "content": "x"}] * 4097},
        {"model": ""}, {"model": 1}, {"instructions": 1}, {"max_output_tokens": 0},
        {"max_output_tokens": "5"}, {"temperature": "1"}, {"temperature": -1}, {"top_p": 2},
        {"stream": "yes"}, {"store": 1}, {"metadata": {"a": 1}}, {"metadata": []},
        {"metadata": {str(i): "x" for i in range(17)}}, {"metadata": {"a": "x" * 513}},
        {"tools": [{}]}, {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "name": "f", "parameters": 1}]}, {"tools": {}},
        {"tool_choice": "must"}, {"tool_choice": {"type": "function"}},
        {"tool_choice": {"type": "web_search"}}, {"truncation": "auto"}, {"truncation": "x"},
        {"text": {"format": {"type": "json_schema"}}}, {"text": {"format": {"type": "xml"}}},
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": 1}}},
        {"text": {"format": {"type": "json_object"}}, "guided_regex": "a"},
        {"reasoning": {"effort": "all"}}, {"top_logprobs": 21}, {"include": "all"},
        {"previous_response_id": "resp_x"}, {"previous_response_id": 1}, {"conversation": "c"},
        {"prompt": {"id": "p"}}, {"background": True, "stream": True},
        {"background": True, "store": False}, {"timeout": -1}, {"keep_alive": "x"},
    )
] + [({"model": "other"}, 404), ({"background": True, "model": "other"}, 404)]  # fmt: skip


def test_bad_bodies_are_refused():
    """Each is the right 4xx with OpenAI's shape, and a normal request is answered after it."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server, httpx.AsyncClient() as http:
            url = f"{server.url}/v1/responses"
            for fields, status in BAD:
                reply = await http.post(url, json={"model": "m", "input": "Hi", **fields})
                assert reply.status_code == status, fields
                assert reply.json()["error"]["message"]
                good = await http.post(url, json={"model": "m", "input": "Hi", "store": False})
                assert good.json()["output"][0]["content"][0]["text"] == "Hello world!"
            for path in ("x", "..%2fmodels", "x/input_items", "%00"):
                assert (await http.get(f"{url}/{path}")).status_code == 404
            assert (await http.post(f"{url}/x/cancel")).status_code == 404
            kept = (await http.post(url, json={"model": "m", "input": "Hi"})).json()["id"]
            for query in ("limit=0", "limit=101", "limit=x", "limit=" + "9" * 99, "after=x"):
                assert (await http.get(f"{url}/{kept}/input_items?{query}")).status_code == 400
            assert (await http.get(f"{url}/{kept}?stream=true")).status_code == 400

    run(main())
