"""A model whose chat template is an attack: one request fails, everybody else is served."""

from __future__ import annotations

import asyncio

import httpx

from quintet import AsyncLLM
from quintet.sandbox.helper import Limits
from quintet.tokenizer.isolated_template import IsolatedTemplate

from .harness import run, serving

TEXT = {"prompt": "a", "max_tokens": 2}
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_a_template_that_hangs_is_its_own_models_problem():
    """While its conversations run into the limit, texts of the same model and conversations of
    another one are answered; the bad ones get 400, or 503 where too many wait."""

    async def main() -> None:
        async with (
            AsyncLLM("demo", isolated=True, num_threads=1) as bad,
            AsyncLLM("demo", isolated=True, num_threads=1) as good,
            serving({"bad": bad, "good": good}) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as client,
        ):
            runtime = bad._loaded_runtime()
            runtime.tokenizer.close()
            runtime.tokenizer = runtime.tokenizer.isolated(
                lambda source, **rest: IsolatedTemplate(LOOPS, **rest, limits=Limits(2.0))
            )

            async def post(path: str, model: str, body: dict[str, object]) -> httpx.Response:
                return await client.post(f"/v1/{path}", json={"model": model, **body})

            attacks = [
                asyncio.ensure_future(post("chat/completions", "bad", CHAT)) for _ in range(12)
            ]
            await asyncio.sleep(0.5)
            for path, model, body in (
                ("completions", "bad", TEXT),
                ("chat/completions", "good", CHAT),
            ):
                assert (await post(path, model, body)).status_code == 200
            assert (await client.get("/health")).json() == {"status": "ok"}
            assert not any(attack.done() and attack.result().is_success for attack in attacks)
            replies = await asyncio.gather(*attacks)
        assert {reply.status_code for reply in replies} <= {400, 503}
        (message,) = {r.json()["error"]["message"] for r in replies if r.status_code == 400}
        assert message == "messages: the chat template takes longer than 2 s"

    run(main())


def test_a_hostile_schema_is_its_own_requests_problem():
    """Refused with 400, and the model goes on."""

    async def main() -> None:
        async with (
            AsyncLLM("demo", isolated=True, num_threads=1) as llm,
            serving({"m": llm}) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as client,
        ):
            for pattern in ("(" * 5000 + ")" * 5000, "a{99999}", "(?<=x)y"):
                schema = {"type": "string", "pattern": pattern}
                form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
                body = {"model": "m", **CHAT, "response_format": form}
                reply = await client.post("/v1/chat/completions", json=body)
                assert reply.status_code == 400, reply.text
            assert llm.stats().num_restarts == 0
            reply = await client.post("/v1/chat/completions", json={"model": "m", **CHAT})
            assert reply.status_code == 200

    run(main())
