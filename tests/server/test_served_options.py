"""What the server adds to every request: a deadline, and whose prefixes it may find."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import pytest

from quintet import AsyncLLM
from quintet.server.catalog import ServedModels, local_manifest
from quintet.server.keys import ApiKey
from quintet.server.models import LoadPolicy, Models

from .fake import FakeEngine
from .harness import run, serving, serving_models, until

TEXT = {"model": "m", "prompt": "a", "max_tokens": 2}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}


def models(engine: Any, tmp_path: Any, **policy: Any) -> Models:
    async def load(manifest: Any) -> Any:
        return engine

    return Models(ServedModels([local_manifest("m", tmp_path)]), load, LoadPolicy(**policy))


@pytest.mark.parametrize(("asked", "given"), [(None, 5.0), (2.0, 2.0), (60.0, 5.0)])
def test_no_request_outlives_the_servers_limit(tmp_path: Any, asked: float | None, given: float):
    """A client may ask for less, not for more."""

    async def main() -> None:
        engine = FakeEngine()
        async with (
            serving_models(models(engine, tmp_path, request_timeout_s=5.0)) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            more = {} if asked is None else {"timeout": asked}
            for path, body in (("completions", TEXT), ("chat/completions", CHAT)):
                assert (await client.post(f"/v1/{path}", json={**body, **more})).is_success
        assert [options["timeout_s"] for options in engine.options] == [given] * 2

    run(main())


def test_a_full_queue_is_told_after_its_time(tmp_path: Any):
    """Whose turn does not come gets 503 and may come again, in each protocol's words; the metric
    counts it."""

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1, max_model_len=512, max_num_seqs=1) as llm:
            served = models(llm, tmp_path, queue_timeout_s=0.2, keep_alive_s=math.inf)
            async with (
                serving_models(served) as server,
                httpx.AsyncClient(base_url=server.url, timeout=60) as client,
            ):
                long = {**TEXT, "max_tokens": 200, "n": 8, "ignore_eos": True}
                first = asyncio.ensure_future(client.post("/v1/completions", json=long))
                await until(lambda: llm.stats().num_running > 0)
                late = await client.post("/v1/completions", json=TEXT)
                assert late.status_code == 503, late.text
                assert late.json()["error"]["code"] == "overloaded"
                assert late.headers["retry-after"]
                assert (await first).is_success
                metrics = (await client.get("/metrics")).text
        assert 'quintet_requests_queue_timed_out_total{model="m"} 1.0' in metrics

    run(main())


@pytest.mark.parametrize(
    ("path", "fields", "given"),
    [
        ("chat/completions", {"thinking_token_budget": 0}, 0),
        ("chat/completions", {"thinking_budget_tokens": 9}, 9),
        ("chat/completions", {"thinking_budget_tokens": -1}, None),
        ("chat/completions", {}, None),
        ("responses", {"input": "a", "thinking_token_budget": 7}, 7),
        ("messages", {"thinking": {"type": "enabled", "budget_tokens": 1}}, 1),
        ("messages", {"thinking": {"type": "enabled"}}, None),
        ("messages", {"thinking": {"type": "disabled"}}, None),
        ("chat/completions", {"thinking_token_budget": 1, "thinking_budget_tokens": 1}, 400),
        ("messages", {"thinking": {"type": "enabled", "budget_tokens": 2}}, 400),
        ("messages", {"thinking": {"type": "enabled", "budget_tokens": 0}}, 400),
    ],
)
def test_a_thoughts_budget_reaches_the_engine(path: str, fields: Any, given: int | None):
    """By the name that each protocol has for it; Anthropic's must leave room for an answer."""

    async def main() -> None:
        engine = FakeEngine()
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            reply = await client.post(f"/v1/{path}", json={**CHAT, **fields})
        if given == 400:
            assert reply.status_code == 400
            assert "budget" in reply.text
        else:
            assert reply.is_success, reply.text
            assert engine.options[0].get("max_thinking_tokens") == given

    run(main())


def test_a_deadline_ends_an_answer_where_it_is(tmp_path: Any):
    """With what there is of it, on a real engine."""

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1, max_model_len=2048) as llm:
            served = models(llm, tmp_path, request_timeout_s=0.2, keep_alive_s=math.inf)
            async with (
                serving_models(served) as server,
                httpx.AsyncClient(base_url=server.url) as client,
            ):
                body = {**TEXT, "n": 16, "max_tokens": 2000, "ignore_eos": True}
                reply = (await client.post("/v1/completions", json=body)).json()
                assert {choice["finish_reason"] for choice in reply["choices"]} == {"length"}
                assert reply["usage"]["completion_tokens"] < 16 * 2000
                assert llm.stats().num_timed_out == 1

    run(main())


def test_prefixes_are_shared_within_a_key_only():
    """Each key has a salt of its own; without keys there is none."""

    async def main() -> None:
        engine, keys = FakeEngine(), (ApiKey.of("a"), ApiKey.of("b"))
        async with (
            serving({"m": engine}, keys=keys) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            for key in ("a", "b", "a"):
                await client.post("/v1/completions", json=TEXT, headers={"x-api-key": key})
        first, second, third = (options["cache_salt"] for options in engine.options)
        assert first == third != second
        assert ApiKey.of("a").digest.hex() not in first
        open_engine = FakeEngine()
        async with (
            serving({"m": open_engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            await client.post("/v1/completions", json=TEXT)
        assert open_engine.options[0]["cache_salt"] == ""

    run(main())


def test_another_keys_prefix_is_not_found():
    """On a real engine: the second request of a key finds the first one's blocks, a stranger's
    does not."""

    async def main() -> None:
        keys = (ApiKey.of("a"), ApiKey.of("b"))
        async with (
            AsyncLLM("demo", num_threads=1) as llm,
            serving({"m": llm}, keys=keys) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {**TEXT, "prompt": list(range(100, 180))}

            async def cached(key: str) -> int:
                reply = await client.post("/v1/completions", json=body, headers={"x-api-key": key})
                return reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

            assert [await cached(key) for key in "aabb"] == [0, 64, 0, 64]

    run(main())


def test_embeddings_are_work_that_health_and_limits_see():
    """An engine that hangs in one is stuck; the tokens it took are counted."""

    async def main() -> None:
        engine = FakeEngine()
        gate = asyncio.Event()
        embed = engine.embed

        async def slow(*arguments: Any, **options: Any) -> Any:
            await gate.wait()
            return await embed(*arguments, **options)

        engine.embed = slow  # type: ignore[method-assign]
        async with (
            serving({"m": engine}, stuck_after_s=0.1) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {"model": "m", "input": "a"}
            answer = asyncio.ensure_future(client.post("/v1/embeddings", json=body))
            await until(lambda: server._http_stats.num_in_flight == 1)
            await client.get("/health")
            await asyncio.sleep(0.2)
            assert (await client.get("/health")).json() == {"status": "stuck"}
            gate.set()
            assert (await answer).status_code == 200
            assert (await client.get("/health")).json() == {"status": "ok"}

    run(main())
