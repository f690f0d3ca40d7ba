"""llama-server's interface on the demo model: the bodies its clients know, and its refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from quintet import AsyncLLM
from quintet.server.dialects.llamacpp.bodies import InfillBody
from quintet.server.dialects.llamacpp.prompts import infill_prompt

from .fake import FakeEngine
from .harness import run, serving

PROMPT = "The capital of France is"


def on_demo(use: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run a client against a server of the demo model."""

    async def main() -> None:
        async with (
            AsyncLLM("demo", num_threads=1) as llm,
            serving({"demo": llm}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            await use(client)

    run(main())


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: ")]


def test_completion_whole_and_streamed():
    """Both are the same text; the last object counts, times and tells why it ended."""

    async def use(client: httpx.AsyncClient) -> None:
        body = {"prompt": PROMPT, "n_predict": 8, "temperature": 0, "n_probs": 2}
        whole = await ask(client, "/completion", **body, return_tokens=True)
        assert whole["stop"] is True
        assert whole["content"]
        assert whole["model"] == "demo"
        assert whole["tokens_predicted"] == len(whole["tokens"]) <= 8
        assert whole["generation_settings"]["temperature"] == 0
        assert whole["timings"]["predicted_n"] == whole["tokens_predicted"]
        assert (
            whole["timings"]["prompt_n"] + whole["timings"]["cache_n"] == whole["tokens_evaluated"]
        )
        first = whole["completion_probabilities"][0]
        assert first["id"] == whole["tokens"][0]
        assert first["top_logprobs"][0]["logprob"] == pytest.approx(first["logprob"])
        assert first["token"].encode() == bytes(first["bytes"])

        reply = await client.post("/completions", json={**body, "stream": True})
        assert "[DONE]" not in reply.text
        *parts, last = events(reply.text)
        assert all(part["stop"] is False for part in parts)
        assert "".join(part["content"] for part in parts) == whole["content"]
        assert last["stop"] is True
        assert last["content"] == ""
        assert last["stop_type"] == whole["stop_type"]

    on_demo(use)


def test_prompts_in_every_shape():
    """Text, ids, both mixed, and several at once."""

    async def use(client: httpx.AsyncClient) -> None:
        settings = {"n_predict": 4, "temperature": 0}
        ids = (await ask(client, "/tokenize", content=PROMPT, add_special=True))["tokens"]
        half = (await ask(client, "/detokenize", tokens=ids[:2]))["content"]
        text = (await ask(client, "/completion", prompt=PROMPT, **settings))["content"]
        for prompt in (ids, [half, *ids[2:]], {"prompt_string": PROMPT}):
            shape = [prompt] if isinstance(prompt, dict) else prompt
            assert (await ask(client, "/completion", prompt=shape, **settings))["content"] == text
        several = await ask(client, "/completion", prompt=[PROMPT, "Hello"], **settings)
        assert [one["index"] for one in several] == [0, 1]
        assert several[0]["content"] == text
        nothing = await ask(client, "/completion", prompt=PROMPT, n_predict=0)
        assert (nothing["content"], nothing["tokens_predicted"]) == ("", 0)
        assert nothing["tokens_evaluated"] == len(ids)

    on_demo(use)


def test_stops_biases_grammars_and_fields():
    """A stop word is named; a bias forbids; a grammar holds; only the fields asked for come."""

    async def use(client: httpx.AsyncClient) -> None:
        free = await ask(client, "/completion", prompt=PROMPT, n_predict=8, temperature=0)
        word = free["content"].split()[0]
        stopped = await ask(client, "/completion", prompt=PROMPT, temperature=0, stop=[word])
        assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", word)
        assert word not in stopped["content"]

        token = (await ask(client, "/tokenize", content=" " + word))["tokens"][0]
        for bias in ([[token, False]], {str(token): -100}):
            other = await ask(
                client,
                "/completion",
                prompt=PROMPT,
                n_predict=1,
                temperature=0,
                logit_bias=bias,
                return_tokens=True,
            )
            assert other["tokens"] != [token]

        grammar = 'root ::= "yes" | "no"'
        answer = await ask(client, "/completion", prompt="Is it?", grammar=grammar, seed=1)
        assert answer["content"] in ("yes", "no")
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        answer = await ask(
            client, "/completion", prompt="JSON:", json_schema=schema, n_predict=40, seed=1
        )
        if answer["stop_type"] == "eos":
            assert isinstance(json.loads(answer["content"])["a"], int)
        fields = ["content", "generation_settings/n_predict"]
        short = await ask(client, "/completion", prompt="a", n_predict=1, response_fields=fields)
        assert set(short) == {"content", "n_predict"}

    on_demo(use)


def test_tokens_templates_props_and_slots():
    """What tools ask a server before they use it."""

    async def use(client: httpx.AsyncClient) -> None:
        pieces = (await ask(client, "/tokenize", content="héllo 🙂", with_pieces=True))["tokens"]
        data = b"".join(
            piece["piece"].encode() if isinstance(piece["piece"], str) else bytes(piece["piece"])
            for piece in pieces
        )
        assert data.decode() == "héllo 🙂"
        messages = [{"role": "user", "content": "Hi"}]
        prompt = (await ask(client, "/apply-template", messages=messages))["prompt"]
        assert "<|im_start|>user\nHi<|im_end|>" in prompt
        props = (await client.get("/props")).json()
        assert props["model_alias"] == "demo"
        assert "/" not in props["model_path"]
        assert props["default_generation_settings"]["n_ctx"] > 0
        assert "messages" in props["chat_template"]
        slots = (await client.get("/slots")).json()
        assert len(slots) == props["total_slots"]
        assert not any(slot["is_processing"] for slot in slots)
        assert (await client.get("/v1/health")).json() == {"status": "ok"}
        assert (await client.get("/models")).json()["data"][0]["id"] == "demo"
        chat = await ask(client, "/chat/completions", model="demo", messages=messages, max_tokens=4)
        assert chat["object"] == "chat.completion"
        assert (await client.get("/lora-adapters")).json() == []

    on_demo(use)


BAD = [
    ("/completion", {}, 400),
    ("/completion", {"prompt": 5}, 400),
    ("/completion", {"prompt": []}, 400),
    ("/completion", {"prompt": [True]}, 400),
    ("/completion", {"prompt": [[1, "a", None]]}, 400),
    ("/completion", {"prompt": [-1]}, 400),
    ("/completion", {"prompt": [10**9]}, 400),
    ("/completion", {"prompt": ["a"] * 65}, 400),
    ("/completion", {"prompt": "a", "temperature": "hot"}, 400),
    ("/completion", {"prompt": "a", "n_predict": -2}, 400),
    ("/completion", {"prompt": "a", "n_probs": 21}, 400),
    ("/completion", {"prompt": "a", "logit_bias": [[1]]}, 400),
    ("/completion", {"prompt": "a", "logit_bias": [[1, True]]}, 400),
    ("/completion", {"prompt": "a", "logit_bias": [[None, 1]]}, 400),
    ("/completion", {"prompt": "a", "grammar": "root ::= ("}, 400),
    ("/completion", {"prompt": "a", "grammar": "x", "json_schema": {}}, 400),
    ("/completion", {"prompt": "a", "mirostat": 3}, 400),
    ("/completion", {"prompt": [{"prompt_string": "a", "multimodal_data": ["x"]}]}, 400),
    ("/completion", {"prompt": "a", "model": "other"}, 404),
    ("/tokenize", {"content": 1}, 400),
    ("/detokenize", {"tokens": [10**8]}, 400),
    ("/apply-template", {"messages": [{"role": "root", "content": "a"}]}, 400),
    ("/infill", {"input_prefix": "a", "input_suffix": "b"}, 501),
    ("/props", {}, 501),
    ("/slots/0?action=save", {"filename": "x"}, 501),
]


def test_bad_requests_are_refused_in_llama_servers_shape():
    """An integer code, the status; the server goes on."""

    async def use(client: httpx.AsyncClient) -> None:
        for path, body, status in BAD:
            reply = await client.post(path, json=body)
            assert reply.status_code == status, (path, body, reply.text)
            error = reply.json()["error"]
            assert error["code"] == status
            assert error["type"].endswith("_error")
            assert isinstance(error["message"], str)
        overflow = await client.post("/completion", json={"prompt": "word " * 5000})
        assert overflow.json()["error"]["type"] == "exceed_context_size_error"
        assert overflow.json()["error"]["n_prompt_tokens"] > overflow.json()["error"]["n_ctx"]
        await ask(client, "/completion", prompt="a", n_predict=1)

    on_demo(use)


def test_a_client_that_leaves_ends_its_request():
    """Both of one body's prompts are aborted."""

    async def main() -> None:
        engine = FakeEngine(is_gated=True)
        async with (
            serving({"m": engine}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            body = {"prompt": [[1], [2]], "stream": True}
            asking = asyncio.ensure_future(client.post("/completion", json=body))
            while engine.num_running < 2:
                await asyncio.sleep(0.005)
            asking.cancel()
            while engine.num_aborted < 2:
                await asyncio.sleep(0.005)

    run(main())


class CoderTokenizer:
    """A token per character, behind the marks of Qwen 2.5 Coder."""

    MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>")

    def encode(self, text: str, **options: Any) -> list[int]:
        return [10 + ord(char) for char in text]

    def token_to_id(self, text: str) -> int | None:
        return self.MARKS.index(text) if text in self.MARKS else None

    def is_special(self, token_id: int) -> bool:
        return token_id < 10


def test_infill_frames_the_gap():
    """Prefix, what is typed, suffix, then the middle's mark; other files come before."""
    tokenizer = CoderTokenizer()
    body = InfillBody(input_prefix="ab", input_suffix="c", prompt="d")
    text = tokenizer.encode
    assert infill_prompt(body, tokenizer) == [0, *text("abd"), 1, *text("c"), 2]
    extra = [{"filename": "x.py", "text": "1"}]
    body = InfillBody(input_prefix="a", input_suffix="", input_extra=extra)
    repo = [3, *text("project\n"), 4, *text("x.py\n1"), 4, *text("filename\n")]
    assert infill_prompt(body, tokenizer) == [*repo, 0, *text("a"), 1, 2]
