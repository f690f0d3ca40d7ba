"""Bodies that no client should send: the right 4xx, and a normal answer right after it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from quintet import AsyncLLM

from .harness import run, serving

DEEP: Any = {}
for _ in range(70):
    DEEP = {"a": DEEP}

SHARED: list[dict[str, Any]] = [
    {"temperature": "1"}, {"temperature": 1e308}, {"top_p": -1}, {"top_k": 1.5}, {"n": 0},
    {"n": 99},
    {"seed": 2**70}, {"stop": ["x"] * 99}, {"stop": "x" * 300}, {"logit_bias": {"x": 1}},
    {"logit_bias": {"99999999999": 1}}, {"min_tokens": 9, "max_tokens": 3}, {"max_tokens": 2**40},
    {"typical_p": 2}, {"mirostat": 7}, {"samplers": ["evil"]}, {"samplers": [["top_k"]]},
    {"dry_sequence_breakers": [1]}, {"priority": "high"}, {"timeout": -1}, {"keep_alive": {}},
    {"keep_alive": "1 fortnight"}, {"guided_json": "{"}, {"guided_json": {"type": "evil"}},
    {"guided_regex": "("}, {"guided_choice": [""]}, {"guided_grammar": "root ::= ("},
    {"grammar": "x" * 70_000}, {"grammar": "root ::= root"}, {"structured_outputs": []},
    {"response_format": "json"}, {"response_format": {"type": "json_schema"}},
    {"stream_options": []}, {"stream": "yes"}, {"model": None}, {"model": "x" * 999},
    {"model": ["m"]}, {"truncate_prompt_tokens": 1},
]  # fmt: skip
ROUTES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "chat/completions": (
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        [
            {"messages": {}}, {"messages": [[]]}, {"messages": ["Hi"]}, {"messages": []},
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            {"messages": [{"role": "user", "content": [[]]}]},
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}]},
            {"messages": [{"role": "tool", "content": None}]}, {"logprobs": 5},
            {"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 99}, {"tools": [{}]},
            {"tools": "all"}, {"tool_choice": 1}, {"chat_template": "{{ 1 }}"},
            {"chat_template_kwargs": {"x": 1}}, {"reasoning_effort": "maximal"},
        ],
    ),
    "completions": (
        {"model": "m", "prompt": "Hi"},
        [
            {"prompt": None}, {"prompt": {}}, {"prompt": [[]] * 65}, {"prompt": [["a"]]},
            {"prompt": [2**31]}, {"prompt": [-1]}, {"prompt": [True]}, {"logprobs": 21},
            {"logprobs": True}, {"echo": 1}, {"best_of": 0}, {"best_of": 1, "n": 2},
            {"best_of": 17}, {"suffix": "x"}, {"max_tokens": 0}, {"max_tokens": -5},
            {"prompt": ["a"] * 40, "n": 2},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_every_bad_body_is_a_400_and_hurts_nobody(route: str):
    """Whatever is wrong, streaming or not: OpenAI's error shape, and no trace of the value."""
    good, own = ROUTES[route]

    async def main() -> None:
        async with (
            AsyncLLM("demo", num_threads=1) as llm,
            serving({"m": llm}) as server,
            httpx.AsyncClient() as http,
        ):
            url = f"{server.url}/v1/{route}"
            for stream in (False, True):
                for fields in (*SHARED, *own):
                    reply = await http.post(url, json={**good, "stream": stream, **fields})
                    assert reply.status_code == 400, (fields, reply.text)
                    assert set(reply.json()["error"]) >= {"message", "type", "param", "code"}
            for content in (b"", b"[", b"[]", b"null", b"\xff", json.dumps(DEEP).encode()):
                assert (await http.post(url, content=content)).status_code == 400
            reply = await http.post(url, json={**good, "max_tokens": 4})
            assert reply.json()["usage"]["completion_tokens"] in range(1, 5)
            await llm.audit()

    run(main())
