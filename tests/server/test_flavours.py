"""Flavours: the bodies that nano, DenseCore, Woolly and llama-server print, as settings."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest

from quintet.engine.latency import Histogram
from quintet.engine.stats import EngineStats
from quintet.errors import RequestError
from quintet.server.flavours import FLAVOURS, nano_stats
from quintet.server.settings import DIALECTS, Settings

from .fake import FakeEngine
from .harness import run, serving, until

BODY = {"model": "m", "prompt": "a", "max_tokens": 2}


def ask(dialect: str, *paths: str) -> list[Any]:
    """The replies to GETs, after one completion."""

    async def main() -> list[httpx.Response]:
        async with (
            serving({"m": FakeEngine()}, dialect=dialect) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            assert (await client.post("/v1/completions", json=BODY)).status_code == 200
            return [await client.get(path) for path in paths]

    return run(main())


def test_every_dialect_has_a_flavour():
    """And no other can be asked for."""
    assert set(DIALECTS) == set(FLAVOURS)
    with pytest.raises(RequestError, match="dialect"):
        Settings(dialect="other")


def test_nano():
    """/health, /stats, owned_by, and the code of what is missing."""
    health, stats, models = ask("nano", "/health", "/stats", "/v1/models")
    assert health.json()["status"] == "healthy"
    assert health.json()["uptime"] > 0
    assert set(health.json()) == {"status", "uptime", "model_info", "memory_usage"}
    assert set(stats.json()) == {
        "requests_served",
        "total_tokens_generated",
        "average_response_time",
        "queue_length",
        "active_requests",
    }
    assert models.json()["data"][0]["owned_by"] == "nano-qwen3-serving"

    async def main() -> None:
        async with (
            serving({"m": FakeEngine()}, dialect="nano") as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            reply = await client.post("/v1/chat/completions", json={"model": "m"})
            assert reply.status_code == 400
            assert reply.json()["error"] == {
                "type": "invalid_request_error",
                "message": "Missing required parameter: messages",
                "code": "missing_parameter",
                "param": "messages",
            }
            reply = await client.post("/v1/completions", json={"model": "m"})
            assert reply.json()["error"]["message"] == "Missing required parameter: prompt"
            assert reply.json()["error"]["code"] == "missing_parameter"

    run(main())


def test_nanos_stats_are_those_of_all_models():
    """Sums, and the mean over all requests."""
    first = EngineStats(
        num_finished=3,
        num_generated_tokens=10,
        num_waiting=1,
        latency=Histogram((3,) + (0,) * (len(Histogram().counts) - 1), 6.0),
    )
    second = EngineStats(
        num_finished=1,
        num_running=2,
        latency=Histogram((1,) + (0,) * (len(Histogram().counts) - 1), 2.0),
    )
    assert nano_stats([first, second]) == {
        "requests_served": 4,
        "total_tokens_generated": 10,
        "average_response_time": 2.0,
        "queue_length": 1,
        "active_requests": 2,
    }
    assert nano_stats([])["average_response_time"] == 0.0


def test_densecore():
    """/health with a time stamp, the probes, and metrics by its names."""
    health, live, ready, startup, metrics, models = ask(
        "densecore",
        "/health",
        "/health/live",
        "/health/ready",
        "/health/startup",
        "/metrics",
        "/v1/models",
    )
    assert health.json()["status"] == "healthy"
    assert health.json()["timestamp"].endswith("Z")
    datetime.fromisoformat(health.json()["timestamp"].replace("Z", "+00:00"))
    assert [probe.status_code for probe in (live, ready, startup)] == [200] * 3
    assert "# TYPE densecore_requests_total counter" in metrics.text
    assert "# TYPE densecore_tokens_per_second gauge" in metrics.text
    assert models.json()["data"][0]["owned_by"] == "densecore"


def test_woolly():
    """/health with version and uptime."""
    (health,) = ask("woolly", "/health")
    assert health.json()["status"] == "ok"
    assert set(health.json()) == {"status", "version", "uptime"}


def test_llama_server_tells_ill_health_as_an_error():
    """Well is a status; anything else is its error object."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}, dialect="llamacpp", stuck_after_s=0.1) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            assert (await client.get("/health")).json() == {"status": "ok"}
            asking = asyncio.ensure_future(client.post("/v1/completions", json=BODY))
            await until(lambda: engine.num_running == 1)
            await client.get("/health")
            await asyncio.sleep(0.2)
            reply = await client.get("/health")
            assert reply.status_code == 503
            assert reply.json()["error"]["type"] == "unavailable_error"
            engine.permit(10)
            await asking

    run(main())
