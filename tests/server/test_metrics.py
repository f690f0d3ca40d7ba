"""/metrics: what Prometheus reads is what the engines and the HTTP side counted."""

from __future__ import annotations

import math
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from quintet import AsyncLLM
from quintet.server.metrics import CONTENT_TYPE

from .fake import FakeEngine
from .harness import run, serving, until

BODY = {"model": "demo", "prompt": "a", "max_tokens": 5, "temperature": 0, "ignore_eos": True}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Name and labels to value, as Prometheus' own parser reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_engine_metrics_of_real_requests():
    """Counters, gauges and llama-server's names agree with the answers that were given."""

    async def main() -> dict[Any, float]:
        async with (
            AsyncLLM("demo", num_threads=1) as llm,
            serving({"demo": llm}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            for _ in range(2):
                usage = (await client.post("/v1/completions", json=BODY)).json()["usage"]
                assert usage["completion_tokens"] == 5
            reply = await client.get("/metrics")
            assert reply.headers["content-type"] == CONTENT_TYPE
            found = samples(reply.text)
            stats = llm.stats()
        assert found[key("quintet_prompt_tokens_total", model="demo")] == stats.num_prompt_tokens
        assert found[key("quintet_steps_total", model="demo")] == stats.num_steps
        assert found[key("quintet_kv_blocks", model="demo")] == stats.num_blocks
        return found

    found = run(main())
    assert found[key("quintet_requests_total", model="demo")] == 2
    assert found[key("quintet_requests_running", model="demo")] == 0
    for name in ("quintet_generated_tokens_total", "llamacpp:tokens_predicted_total"):
        assert found[key(name, model="demo")] == 10
    assert found[key("llamacpp:predicted_tokens_seconds", model="demo")] > 0
    assert found[key("llamacpp:requests_processing", model="demo")] == 0
    assert found[key("llamacpp:n_busy_slots_per_decode", model="demo")] == 1
    route = {"method": "POST", "route": "/v1/completions", "status": "200"}
    assert found[key("quintet_http_requests_total", **route)] == 2
    assert found[key("quintet_http_request_seconds_count", route="/v1/completions")] == 2
    assert found[key("process_resident_memory_bytes")] > 10_000_000
    for name, count in (
        ("queue_seconds", 2),
        ("prefill_seconds", 2),
        ("time_to_first_token_seconds", 2),
        ("inter_token_seconds", 8),
        ("request_seconds", 2),
    ):
        assert found[key(f"quintet_{name}_count", model="demo")] == count
        assert found[key(f"quintet_{name}_sum", model="demo")] >= 0
        buckets = {
            float(dict(labels)["le"]): value
            for (sample, labels), value in found.items()
            if sample == f"quintet_{name}_bucket"
        }
        assert buckets[math.inf] == count
        values = [buckets[bound] for bound in sorted(buckets)]
        assert values == sorted(values), "buckets count what is at or below their bound"
        assert len(values) == 30


def test_http_metrics_have_few_labels():
    """Paths, methods and models that clients make up are no labels; refusals are counted."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({'m"\n}': engine}, metric_prefix="densecore") as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            for index in range(5):
                await client.get(f"/nothing/{index}")
                await client.request(f"FOO{index}", "/v1/models")
                await client.post("/v1/completions", json={"model": f"x{index}", "prompt": "a"})
            body = {"model": 'm"\n}', "prompt": "a", "stream": True}
            engine.permit(1)  # the head comes with the first token
            async with client.stream("POST", "/v1/completions", json=body) as stream:
                await until(lambda: engine.num_steps == 1)
                found = samples((await client.get("/metrics")).text)
                assert found[key("densecore_http_streams")] == 1
                assert found[key("densecore_http_requests_in_flight")] == 2
                assert found[key("densecore_requests_running", model='m"\n}')] == 1
                engine.permit(100)
                assert "[DONE]" in (await stream.aread()).decode()
            found = samples((await client.get("/metrics")).text)
            assert found[key("densecore_http_streams")] == 0
            assert found[key("densecore_health", state="ok")] == 1
            assert found[key("densecore_health", state="stuck")] == 0
        counted = {
            tuple(dict(labels)[label] for label in ("method", "route", "status")): value
            for (name, labels), value in found.items()
            if name == "densecore_http_requests_total"
        }
        assert counted == {
            ("GET", "unmatched", "404"): 5,
            ("OTHER", "/v1/models", "405"): 5,
            ("POST", "/v1/completions", "404"): 5,
            ("POST", "/v1/completions", "200"): 1,
            ("GET", "/metrics", "200"): 1,
        }

    run(main())
