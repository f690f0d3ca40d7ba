"""Limits per client, on a clock of the test's own, and as clients see them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from quintet.errors import RequestError
from quintet.server.errors import HTTPRefusal
from quintet.server.keys import ApiKey
from quintet.server.rate_limits import MAX_CLIENTS, RateLimiter, RateLimits

from .fake import FakeEngine
from .harness import run, serving, until

BODY = {"model": "m", "prompt": "a", "max_tokens": 2}


class Clock:
    """Goes forward when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_no_minute_lets_in_more_than_twice_the_limit(pauses_s: list[float]):
    """A full bucket and what flows in: never more, and always as much as flows in."""
    clock = Clock()
    limiter = RateLimiter(RateLimits(requests_per_minute=6), clock)
    admitted = []
    for pause_s in pauses_s:
        clock.now_s += pause_s
        try:
            with limiter.admit(b"a"):
                admitted.append(clock.now_s)
        except HTTPRefusal as refusal:
            clock.now_s += int(refusal.headers["Retry-After"])
            with limiter.admit(b"a"):  # what it was told is true
                admitted.append(clock.now_s)
    for start_s in admitted:
        assert sum(start_s <= at_s < start_s + 60 for at_s in admitted) <= 12


def test_tokens_are_taken_as_they_are_known():
    """A request that took more than there was is paid off before the next one."""
    clock = Clock()
    limiter = RateLimiter(RateLimits(tokens_per_minute=60), clock)
    with limiter.admit(b"a") as headers:
        assert headers["x-ratelimit-remaining-tokens"] == "60"
        limiter.take_tokens(b"a", 100)
    with pytest.raises(HTTPRefusal) as caught, limiter.admit(b"a"):
        pass
    assert caught.value.headers["Retry-After"] == "41"
    assert caught.value.headers["x-ratelimit-remaining-tokens"] == "0"
    clock.now_s += 41
    with limiter.admit(b"a"):
        pass
    with limiter.admit(b"b"):  # another client has its own
        pass


def test_the_table_is_bounded_and_keeps_who_is_there():
    """Ever new clients push out those who are gone, not those whose requests run."""
    limiter = RateLimiter(RateLimits(max_concurrent=1))
    with limiter.admit(b"stays"):
        for index in range(MAX_CLIENTS + 100):
            with limiter.admit(str(index).encode()):
                pass
            limiter.count_failure(str(index))
        assert len(limiter._accounts) <= MAX_CLIENTS
        assert len(limiter._failures) <= MAX_CLIENTS
        with pytest.raises(HTTPRefusal), limiter.admit(b"stays"):
            pass


def test_wrong_keys_from_one_address_are_limited():
    """After ten in a minute the address waits; another one does not."""
    clock = Clock()
    limiter = RateLimiter(RateLimits(), clock)
    for _ in range(10):
        limiter.check_address("192.0.2.1")
        limiter.count_failure("192.0.2.1")
    with pytest.raises(HTTPRefusal) as caught:
        limiter.check_address("192.0.2.1")
    assert caught.value.headers["Retry-After"] == "6"
    limiter.check_address("192.0.2.2")
    clock.now_s += 6
    limiter.check_address("192.0.2.1")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(limit: int):
    """Nobody sets up a server that answers nobody by a slip."""
    with pytest.raises(RequestError):
        RateLimits(requests_per_minute=limit)


def test_requests_per_key():
    """Each key has its own account; the reply says what is left; reading lists is free."""

    async def main() -> None:
        keys = (ApiKey.of("a"), ApiKey.of("b"))
        async with (
            serving(
                {"m": FakeEngine()}, keys=keys, rate_limits=RateLimits(requests_per_minute=2)
            ) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):

            async def post(key: str) -> httpx.Response:
                return await client.post("/v1/completions", json=BODY, headers={"x-api-key": key})

            replies = [await post("a") for _ in range(3)]
            assert [reply.status_code for reply in replies] == [200, 200, 429]
            assert replies[0].headers["x-ratelimit-limit-requests"] == "2"
            assert replies[0].headers["x-ratelimit-remaining-requests"] == "1"
            assert replies[0].headers["x-ratelimit-reset-requests"].endswith("s")
            assert 25 <= int(replies[2].headers["retry-after"]) <= 30
            assert replies[2].json()["error"]["code"] == "rate_limit_exceeded"
            assert (await post("b")).status_code == 200
            listed = await client.get("/v1/models", headers={"x-api-key": "a"})
            assert listed.status_code == 200

    run(main())


def test_tokens_per_key_are_counted_from_the_answer():
    """Prompt and answer, streamed or whole, also of a client that leaves."""

    async def main() -> None:
        engine = FakeEngine((1, 2) * 20, is_gated=True)
        engine.permit(3)
        async with (
            serving({"m": engine}, rate_limits=RateLimits(tokens_per_minute=1000)) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            left = "x-ratelimit-remaining-tokens"
            first = await client.post("/v1/completions", json={**BODY, "max_tokens": 3})
            assert first.headers[left] == "1000"
            engine.permit(2)
            body = {**BODY, "max_tokens": 30, "stream": True}
            async with client.stream("POST", "/v1/completions", json=body) as second:
                assert second.headers[left] == "990"  # a prompt of 7, an answer of 3
                await until(lambda: engine.num_steps == 5)
            await until(lambda: engine.num_running == 0)
            engine.permit(10)
            third = await client.post("/v1/completions", json=BODY)
            assert third.headers[left] == "988"

    run(main())


def test_sockets_have_no_way_around_the_limits():
    """What is asked for over a WebSocket counts like any request, and so do its tokens."""

    async def main() -> None:
        limits = RateLimits(requests_per_minute=2, tokens_per_minute=1000, max_sockets=1)
        async with (
            serving({"m": FakeEngine()}, rate_limits=limits) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            url = server.url.replace("http", "ws") + "/ws"
            async with websockets.connect(url) as socket:

                async def ask(number: int) -> dict[str, Any]:
                    ask = {"type": "generate", "id": str(number), "prompt": "a"}
                    await socket.send(json.dumps(ask))
                    while (event := json.loads(await socket.recv()))["type"] in ("token", "status"):
                        pass
                    return event

                assert [(await ask(i))["type"] for i in range(3)] == [
                    "complete",
                    "complete",
                    "error",
                ]
                assert "more than 2 requests per minute" in (await ask(9))["error"]
                reply = await client.post("/v1/completions", json=BODY)
                assert reply.status_code == 429
                assert reply.headers["x-ratelimit-remaining-tokens"] == str(1000 - 2 * (7 + 5))
                with pytest.raises(websockets.InvalidStatus) as caught:
                    await websockets.connect(url)
                assert caught.value.response.status_code == 429
            await until(lambda: server._http_stats.num_sockets == 0)
            async with websockets.connect(url):
                pass

    run(main())


def test_concurrent_requests_per_client():
    """One more than the limit is told to come back; when one ends there is room again."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}, rate_limits=RateLimits(max_concurrent=2)) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            running = [
                asyncio.ensure_future(client.post("/v1/completions", json=BODY)) for _ in range(2)
            ]
            await until(lambda: engine.num_running == 2)
            reply = await client.post("/v1/completions", json=BODY)
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
            engine.permit(100)
            assert {(await reply).status_code for reply in running} == {200}
            assert (await client.post("/v1/completions", json=BODY)).status_code == 200

    run(main())
