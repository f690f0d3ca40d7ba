"""Anthropic's interface: the official client on the demo model, event order, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx

from quintet import AsyncLLM
from quintet.engine.output import OutputChunk, Usage
from quintet.parsing.events import ToolCallDelta
from quintet.server.answers import Answer
from quintet.server.bodies import parse_body
from quintet.server.dialects.anthropic.bodies import MessagesBody
from quintet.server.dialects.anthropic.conversation import chat_prompt
from quintet.server.dialects.anthropic.replies import MessageEvents, message

from .fake import FakeEngine
from .harness import run, serving

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def on_demo(use: Callable[[anthropic.AsyncAnthropic], Awaitable[None]]) -> None:
    """Run the official client against a server of the demo model."""

    async def main() -> None:
        async with (
            AsyncLLM("demo", num_threads=1) as llm,
            serving({"demo": llm}) as server,
            anthropic.AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0) as client,
        ):
            await use(client)

    run(main())


def test_messages_whole_and_streamed():
    """The stream's text and usage are the whole's; the prompt's size is told first."""

    async def use(client: anthropic.AsyncAnthropic) -> None:
        request: dict[str, Any] = {
            "model": "demo",
            "messages": QUESTION,
            "max_tokens": 16,
            "extra_body": {"temperature": 0},
            "system": [{"type": "text", "text": "You are helpful."}],
        }
        whole = await client.messages.create(**request)
        assert "Paris" in whole.content[0].text
        assert whole.stop_reason == "end_turn"
        async with client.messages.stream(**request) as stream:
            kinds = [event.type async for event in stream]
            last = await stream.get_final_message()
        assert kinds[0] == "message_start"
        assert kinds[-1] == "message_stop"
        assert last.content[0].text == whole.content[0].text
        assert last.usage.output_tokens == whole.usage.output_tokens
        del request["max_tokens"], request["extra_body"]
        count = await client.messages.count_tokens(**request)
        total = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
        assert count.input_tokens == total

    on_demo(use)


def test_stops_and_limits_have_their_names():
    """A stop sequence is named and not part of the text; a limit is max_tokens."""

    async def use(client: anthropic.AsyncAnthropic) -> None:
        request: dict[str, Any] = {
            "model": "demo",
            "messages": QUESTION,
            "extra_body": {"temperature": 0},
        }
        short = await client.messages.create(**request, max_tokens=1)
        assert short.stop_reason == "max_tokens"
        stopped = await client.messages.create(**request, max_tokens=32, stop_sequences=["Paris"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Paris")
        assert "Paris" not in stopped.content[0].text

    on_demo(use)


def test_a_forced_tool_call_and_its_result():
    """The call comes as a block with an object; its result goes back in the next message."""

    async def use(client: anthropic.AsyncAnthropic) -> None:
        request: dict[str, Any] = {
            "model": "demo",
            "max_tokens": 64,
            "extra_body": {"temperature": 0},
            "tools": [WEATHER],
        }
        choice = {"type": "tool", "name": "get_weather"}
        reply = await client.messages.create(
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tool_choice=choice,
            **request,
        )
        assert reply.stop_reason == "tool_use"
        call = next(block for block in reply.content if block.type == "tool_use")
        assert call.name == "get_weather"
        assert set(call.input) <= {"city"}
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        after = await client.messages.create(
            messages=[
                {"role": "user", "content": "What is the weather in Paris?"},
                {"role": "assistant", "content": reply.content},
                {"role": "user", "content": [result]},
            ],
            **request,
        )
        assert after.type == "message"

    on_demo(use)


def chunks() -> list[OutputChunk]:
    call = [
        ToolCallDelta(0, id="abcdefghi", name="f"),
        ToolCallDelta(0, arguments='{"a": '),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, id="jklmnopqr", name="g"),
    ]
    return [
        OutputChunk("r", reasoning="hm"),
        OutputChunk("r", "Hello"),
        OutputChunk("r", " there", tool_calls=tuple(call[:2])),
        OutputChunk("r", tool_calls=tuple(call[2:])),
        OutputChunk("r", finish_reason="stop", usage=Usage(9, 4, 5)),
    ]


def test_events_build_what_the_whole_reply_is():
    """Blocks open and close in order, each with its own index; folded up they are the message."""
    events = MessageEvents("m", 9)
    frames = [*events.start()]
    answer = Answer()
    for chunk in chunks():
        answer.add(chunk)
        frames += events.add(chunk)
    frames += events.end()
    names = [frame.split(b"\n")[0].removeprefix(b"event: ").decode() for frame in frames]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert names == [
        "message_start",
        "ping",
        *("content_block_start", "content_block_delta", "content_block_delta", block[2]),
        *("content_block_start", "content_block_delta", "content_block_delta", block[2]),
        *("content_block_start", "content_block_delta", "content_block_delta", block[2]),
        *("content_block_start", block[2]),
        "message_delta",
        "message_stop",
    ]
    whole = message("m", answer)
    assert [part["type"] for part in whole["content"]] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert whole["content"][2]["input"] == {"a": 1}
    assert whole["content"][3]["input"] == {}
    assert whole["stop_reason"] == "tool_use"
    assert whole["usage"]["input_tokens"] == 5
    assert whole["usage"]["cache_read_input_tokens"] == 4


def test_history_becomes_what_templates_print():
    """Thoughts, calls and results find their places; a line that changes each time is left out."""
    body = parse_body(
        MessagesBody,
        {
            "model": "m",
            "max_tokens": 1,
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: 123"},
                {"type": "text", "text": "Be brief."},
            ],
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": ""},
                        {"type": "text", "text": "Let me look."},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "is_error": True,
                            "content": [{"type": "text", "text": "no"}],
                        },
                        {"type": "text", "text": "Well?"},
                    ],
                },
            ],
            "tools": [{"name": "f", "input_schema": {}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "thinking": {"type": "enabled", "budget_tokens": 2048},
        },
    )
    prompt = chat_prompt(body)
    assert prompt.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "tool_call_id": "t", "content": "Error: no"},
        {"role": "user", "content": "Well?"},
    ]
    assert (prompt.tool_choice, prompt.parallel_tool_calls) == ("required", False)
    assert prompt.enable_thinking is True


BAD: list[tuple[dict[str, Any], int]] = [
    ({}, 400),
    ({"max_tokens": 0}, 400),
    ({"max_tokens": None}, 400),
    ({"messages": []}, 400),
    ({"messages": [{"role": "system", "content": "a"}]}, 400),
    ({"messages": [{"role": "assistant", "content": "a"}]}, 400),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, 400),
    ({"messages": [{"role": "user", "content": 5}]}, 400),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400),
    ({"tool_choice": {"type": "tool"}}, 400),
    ({"tool_choice": {"type": "any"}}, 400),
    ({"temperature": "x"}, 400),
    ({"stop_sequences": [""]}, 400),
    ({"model": "other"}, 404),
]


def test_bad_requests_are_refused_in_anthropics_shape():
    """Each gets its status; the next good one is answered."""

    async def main() -> None:
        async with (
            AsyncLLM("demo", num_threads=1) as llm,
            serving({"demo": llm}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            good = {"model": "demo", "messages": QUESTION, "max_tokens": 1}
            for change, status in BAD:
                body = {**good, **change} if change else {}
                reply = await client.post("/v1/messages?beta=true", json=body)
                assert reply.status_code == status, (change, reply.text)
                assert reply.json()["type"] == "error"
                assert reply.json()["error"]["type"].endswith("_error")
            assert (await client.post("/v1/messages", json=good)).status_code == 200
            assert (await client.get("/v1/messages")).json()["type"] == "error"

    run(main())


def test_an_error_within_a_stream_is_an_event():
    """What goes wrong after the first byte is told, and the stream ends."""

    async def main() -> None:
        async with (
            serving({"m": FakeEngine(error_after=2)}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {"model": "m", "messages": QUESTION, "max_tokens": 9, "stream": True}
            reply = await client.post("/v1/messages", json=body)
            assert reply.status_code == 200
            assert "event: error" in reply.text
            assert "message_stop" not in reply.text

    run(main())


def test_a_client_that_leaves_ends_its_request():
    """The engine's request is aborted."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {"model": "m", "messages": QUESTION, "max_tokens": 9, "stream": True}
            asking = asyncio.ensure_future(client.post("/v1/messages", json=body))
            while engine.num_running < 1:
                await asyncio.sleep(0.005)
            asking.cancel()
            while engine.num_aborted < 1:
                await asyncio.sleep(0.005)

    run(main())
