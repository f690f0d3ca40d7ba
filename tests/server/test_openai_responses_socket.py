"""Responses over a WebSocket: the official client, lanes, limits and clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketLimits,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from quintet import AsyncLLM
from quintet.server.keys import ApiKey

from .fake import FakeEngine
from .harness import run, serving, until

CREATE = {"type": "response.create", "model": "m", "input": "Hi"}
TOKENS = (1, 2) * 50


@contextlib.asynccontextmanager
async def socket(engine: Any, **settings: Any) -> AsyncIterator[ClientConnection]:
    """A connection to a server with one model."""
    async with serving({"m": engine}, **settings) as server:
        url = server.url.replace("http", "ws", 1)
        async with connect(f"{url}/v1/responses", compression=None) as connection:
            yield connection


async def send(connection: ClientConnection, **fields: Any) -> None:
    await connection.send(json.dumps({**CREATE, **fields}))


async def receive(connection: ClientConnection) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(connection.recv(), 5))


async def turn(connection: ClientConnection) -> list[dict[str, Any]]:
    """Events up to the end of a response, or an error."""
    events = [await receive(connection)]
    ends = ("response.completed", "response.incomplete", "response.failed", "error")
    while events[-1]["type"] not in ends:
        events.append(await receive(connection))
    return events


def test_the_official_client_converses():
    """Its sessions and lanes find the events of HTTP's streams, and chain what is not stored."""

    async def main() -> None:
        limits = ResponsesWebSocketLimits(
            max_lanes=4, max_events_per_lane=999, max_events=999,
            max_bytes_per_lane=2**20, max_bytes=2**20,
        )  # fmt: skip
        request: Any = {**CREATE, "temperature": 0, "max_output_tokens": 200, "store": False}
        async with (
            AsyncLLM("demo", num_threads=1) as llm,
            serving({"m": llm}) as server,
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as api,
        ):
            over_http = await api.responses.create(
                model="m", input="Hi", temperature=0, max_output_tokens=200
            )
            async with (
                api.responses.connect() as connection,
                AsyncResponsesWebSocketSession(connection, limits=limits) as session,
            ):
                lanes = [session.default, session.lane("a"), session.lane("b")]
                for lane in lanes:
                    await lane.send(request)
                replies = [await lane.get_final_response() for lane in lanes]
                assert {reply.output_text for reply in replies} == {over_http.output_text}
                await lanes[1].send(
                    {**request, "input": "And?", "previous_response_id": replies[1].id}
                )
                longer = await lanes[1].get_final_response()
                assert longer.previous_response_id == replies[1].id
                assert longer.usage.input_tokens > over_http.usage.total_tokens
            with pytest.raises(openai.NotFoundError):
                await api.responses.retrieve(longer.id)

    run(main())


def test_events_are_those_of_http():
    """One after the other, numbered, and named after their lane where there is one."""

    async def main() -> None:
        async with socket(FakeEngine()) as connection:
            for lane in ({}, {"stream_id": "a"}):
                await send(connection, **lane)
                events = await turn(connection)
                assert [event["sequence_number"] for event in events] == list(range(len(events)))
                assert {event.get("stream_id") for event in events} == {lane.get("stream_id")}
                assert events[0]["type"] == "response.created"
                output = events[-1]["response"]["output"]
                assert output[0]["content"][0]["text"] == "Hello world!"

    run(main())


def test_turns_of_a_lane_wait_and_lanes_do_not():
    """Within a lane the next begins when the last has ended; another lane goes on meanwhile."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with socket(engine) as connection:
            for lane in ("a", "a", "b"):
                await send(connection, stream_id=lane)
            await until(lambda: engine.num_running == 2)
            assert len(engine.prompts) == 2
            engine.permit(100)
            ended = []
            while len(ended) < 3:
                event = await receive(connection)
                if event["type"] == "response.completed":
                    ended.append(event["stream_id"])
            assert sorted(ended) == ["a", "a", "b"]

    run(main())


def test_a_warm_up_computes_the_prompt_alone():
    """`generate: false` answers nothing, and the next turn goes on from it."""

    async def main() -> None:
        engine = FakeEngine()
        async with socket(engine) as connection:
            await send(connection, generate=False, store=False)
            events = await turn(connection)
            assert [event["type"] for event in events] == [
                "response.created", "response.in_progress", "response.completed",
            ]  # fmt: skip
            warm = events[-1]["response"]
            assert warm["output"] == []
            assert warm["usage"]["output_tokens"] == 0
            assert engine.params[0].max_tokens == 1
            await send(connection, input="more", previous_response_id=warm["id"])
            assert (await turn(connection))[-1]["type"] == "response.completed"
            assert [message["content"] for message in engine.prompts[1][0]] == ["Hi", "more"]

    run(main())


def test_a_failure_ends_its_turn_alone():
    """A response that fails in the middle says so; one that was never begun is an error event."""

    async def main() -> None:
        async with socket(FakeEngine(error_after=1)) as connection:
            await send(connection, stream_id="a")
            events = await turn(connection)
            assert events[-1]["type"] == "response.failed"
            assert events[-1]["stream_id"] == "a"
            await send(connection, model="other", stream_id="a")
            (error,) = await turn(connection)
            assert (error["status"], error["stream_id"]) == (404, "a")
            assert error["error"]["code"] == "model_not_found"
            await send(connection, previous_response_id="resp_x")
            (error,) = await turn(connection)
            assert error["error"]["code"] == "previous_response_not_found"
            assert "stream_id" not in error

    run(main())


BAD: list[str | bytes] = [
    "", "x", "[]", "1", "null", "NaN", "{}", '{"type": "response.cancel"}', '{"type": 1}',
    b"\x00\xff", b'{"type": "response.create"}', "[" * 100_000, '{"a": ' * 65 + "1" + "}" * 65,
    '{"type": "response.create", "type": "response.create"}', '{"a": "\\ud800"}',
    *(
        json.dumps({**CREATE, **fields})
        for fields in (
            {"model": 1}, {"input": 1}, {"input": []}, {"temperature": "1"}, {"background": True},
            {"stream_id": ""}, {"stream_id": "a b"}, {"stream_id": 1}, {"stream_id": "a" * 257},
            {"stream_id": "a\n"}, {"tools": [{"type": "function"}]}, {"generate": "no"},
        )
    ),
]  # fmt: skip


def test_bad_messages_are_error_events():
    """Each is told what is wrong, and the connection goes on."""

    async def main() -> None:
        async with socket(FakeEngine()) as connection:
            for message in BAD:
                await connection.send(message)
                error = await receive(connection)
                assert error["type"] == "error", message
                assert error["status"] == 400
                assert error["error"]["type"] == "invalid_request_error"
            await send(connection)
            assert (await turn(connection))[-1]["type"] == "response.completed"

    run(main())


def test_lanes_and_pending_responses_are_bounded():
    """More than the protocol allows are refused, and those within go on."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with socket(engine) as connection:
            for index in range(17):
                await send(connection, stream_id=f"lane{index % 4}")
            error = await receive(connection)
            assert error["status"] == 429
            assert error["error"]["code"] == "too_many_pending_responses"
            engine.permit(1000)
            ended = 0
            while ended < 16:
                ended += (await receive(connection))["type"] == "response.completed"
            for index in range(4, 33):
                await send(connection, stream_id=f"lane{index}")
                events = await turn(connection)
                is_over = index == 32
                assert events[-1]["type"] == ("error" if is_over else "response.completed")
            assert events[-1]["error"]["code"] == "websocket_stream_limit_reached"

    run(main())


@pytest.mark.parametrize("is_clean", [True, False])
def test_leaving_ends_all_responses(is_clean: bool):
    """Whether the client says goodbye or just vanishes, its lanes stop within a step."""

    async def main() -> None:
        engine = FakeEngine(TOKENS, is_gated=True)
        async with socket(engine) as connection:
            for lane in ("a", "b", "b"):
                await send(connection, stream_id=lane)
            await until(lambda: engine.num_running == 2)
            engine.permit(5)
            await until(lambda: engine.num_steps == 5)
            if is_clean:
                await connection.close()
            else:
                connection.transport.abort()
            await until(lambda: engine.num_running == 0)
            assert engine.num_aborted == 2
            assert len(engine.prompts) == 2

    run(main())


def test_a_silent_connection_is_closed_a_busy_one_is_not():
    """Silence counts while nothing is pending; the deadline for headers is long past by then."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with socket(engine, socket_idle_s=0.2, header_timeout_s=0.1) as connection:
            await send(connection)
            await until(lambda: engine.num_running == 1)
            await asyncio.sleep(0.5)
            engine.permit(100)
            assert (await turn(connection))[-1]["type"] == "response.completed"
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), 5)
            assert connection.close_code == 1000

    run(main())


def test_a_stopping_server_lets_responses_end():
    """What is pending goes on to its end, nothing new is begun, and then the socket is closed."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with serving({"m": engine}) as server:
            url = server.url.replace("http", "ws", 1) + "/v1/responses"
            async with connect(url) as connection:
                await send(connection)
                await until(lambda: engine.num_running == 1)
                server.stop()
                await asyncio.sleep(0.3)  # uvicorn looks ten times a second
                await send(connection, stream_id="late")
                error = await receive(connection)
                assert (error["type"], error["status"]) == ("error", 503)
                engine.permit(100)
                assert (await turn(connection))[-1]["type"] == "response.completed"
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(connection.recv(), 5)
                assert connection.close_code == 1012

    run(main())


def test_a_message_that_is_too_large_closes_the_connection():
    """The limit of bodies holds for messages, before they are read whole."""

    async def main() -> None:
        async with socket(FakeEngine(), max_body_bytes=10_000) as connection:
            await connection.send("x" * 20_000)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), 5)
            assert connection.close_code == 1009

    run(main())


def test_a_client_that_does_not_read_is_dropped():
    """Its responses end; the engine is free again."""

    async def main() -> None:
        engine = FakeEngine((1, 2) * 100_000)
        async with serving({"m": engine}, stall_timeout_s=0.2) as server:
            address = urlsplit(server.url)
            reader, writer = await asyncio.open_connection(
                address.hostname, address.port, limit=1024
            )
            writer.write(
                b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert b" 101 " in await reader.readline()
            data = json.dumps({**CREATE, "top_logprobs": 2}).encode()
            frame = struct.pack("!BBH4x", 0x81, 0x80 | 126, len(data)) + data  # the mask is zero
            if len(data) < 126:
                frame = struct.pack("!BB4x", 0x81, 0x80 | len(data)) + data
            writer.write(frame)
            await until(lambda: engine.num_running == 1)
            await until(lambda: engine.num_running == 0, timeout_s=20)
            assert engine.num_aborted == 1
            writer.transport.abort()

    run(main())


def test_the_handshake_needs_the_key():
    """A refusal is an HTTP reply in OpenAI's shape."""

    async def main() -> None:
        settings: Any = {"keys": (ApiKey.of("secret"),)}
        async with serving({"m": FakeEngine()}, **settings) as server:
            url = server.url.replace("http", "ws", 1) + "/v1/responses"
            with pytest.raises(InvalidStatus) as caught:
                await connect(url)
            assert caught.value.response.status_code == 401
            assert json.loads(caught.value.response.body)["error"]["type"] == "authentication_error"
            async with connect(
                url, additional_headers={"Authorization": "Bearer secret"}
            ) as connection:
                await send(connection)
                assert (await turn(connection))[-1]["type"] == "response.completed"

    run(main())
