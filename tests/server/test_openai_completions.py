"""Completions with the official client: echo and its log probabilities, n, best_of, usage."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from quintet import AsyncLLM
from quintet.engine.output import OutputChunk, TokenLogprob, Usage
from quintet.server.answers import Answer
from quintet.server.dialects.openai.completions import best

from .fake import FakeEngine
from .harness import run, serving

TEXT = "The weather in Paris is nice, and the café is open."


@contextlib.asynccontextmanager
async def client(engine: Any, **settings: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """Of a server with one model."""
    async with (
        serving({"m": engine}, **settings) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api,
    ):
        yield api


def parallel_lists(logprobs: Any) -> list[Any]:
    """The four lists, which must be of one length."""
    lists = [logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset]
    assert len({len(item) for item in lists}) == 1
    return lists


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_scores_prompts_as_evaluations_read_them(max_tokens: int):
    """lm-evaluation-harness's requests: token ids in a batch, echo, one token, which it drops.

    What it makes of the reply are the log probabilities the engine itself gives to these tokens
    when it generates them.
    """

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            prompts = [llm.tokenizer.encode(TEXT), llm.tokenizer.encode("Hello there")]
            generated = await api.completions.create(
                model="m", prompt=prompts[0], max_tokens=6, temperature=0, logprobs=1,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            own = generated.choices[0].logprobs
            outputs = await llm.generate(prompts[0], _greedy(6))
            continuation = list(outputs[0].token_ids)
            whole = [*prompts[0], *continuation]
            reply = await api.completions.create(
                model="m", prompt=[whole, prompts[1]], max_tokens=max_tokens, temperature=0,
                logprobs=1, echo=True, seed=1234,
            )  # fmt: skip
        first, second = reply.choices
        tokens, values, tops, offsets = parallel_lists(first.logprobs)
        assert len(tokens) == len(whole) + max_tokens
        assert values[0] is None
        assert tops[0] is None
        scored = slice(len(prompts[0]), len(whole))
        assert values[scored] == own.token_logprobs
        assert tops[scored] == own.top_logprobs  # greedy: each is the most probable one
        assert [max(top.values()) for top in tops[scored]] == values[scored]
        assert first.text.startswith(TEXT)
        spans = zip(offsets, [*offsets[1:], len(first.text)], strict=True)
        pieces = [first.text[start:stop] for start, stop in spans]
        assert "".join(pieces) == first.text
        assert [
            (piece, token)
            for piece, token in zip(pieces, tokens, strict=True)
            if piece not in (token, "") and "bytes:" not in token and "\ufffd" not in piece
        ] == []
        assert len(second.logprobs.tokens) == len(prompts[1]) + max_tokens
        assert reply.usage.completion_tokens == 2 * max_tokens
        assert reply.usage.prompt_tokens == len(whole) + len(prompts[1])
        assert first.finish_reason == "length"

    run(main())


def test_echo_of_text_comes_back_as_it_was_sent():
    """Text, its tokens and the answer's: whole and streamed are the same."""

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            request: Any = {
                "model": "m", "prompt": TEXT, "max_tokens": 4, "temperature": 0, "logprobs": 2,
                "echo": True, "n": 2, "extra_body": {"ignore_eos": True},
            }  # fmt: skip
            reply = await api.completions.create(**request)
            stream = await api.completions.create(**request, stream=True)
            texts = ["", ""]
            lists: list[list[Any]] = [[[], [], [], []] for _ in range(2)]
            async for chunk in stream:
                (choice,) = chunk.choices
                texts[choice.index] += choice.text
                if choice.logprobs is not None:
                    for have, more in zip(
                        lists[choice.index], parallel_lists(choice.logprobs), strict=True
                    ):
                        have += more
            for index, choice in enumerate(reply.choices):
                assert choice.text.startswith(TEXT)
                assert choice.text == texts[index]
                assert parallel_lists(choice.logprobs) == lists[index]
            num_prompt_tokens = len(llm.tokenizer.encode(TEXT, add_special=True))
            assert len(lists[0][0]) == num_prompt_tokens + 4
            plain = await api.completions.create(
                model="m", prompt=TEXT, max_tokens=0, echo=True, stream=True
            )
            assert [c.choices[0].text async for c in plain] == [TEXT]

    run(main())


def test_a_final_stop_token_has_its_log_probability():
    """Who drops the last value must not lose the last token of the prompt."""

    async def main() -> None:
        async with client(FakeEngine((1,))) as api:
            reply = await api.completions.create(
                model="m", prompt=[1, 2], max_tokens=9, logprobs=1, echo=True
            )
        assert reply.choices[0].text == "Hello worHello"
        assert reply.choices[0].logprobs.tokens == ["Hello", " wor", "Hello", ""]
        assert reply.choices[0].logprobs.token_logprobs == [None, -0.5, -0.25, -0.25]
        assert reply.choices[0].logprobs.text_offset == [0, 5, 9, 14]

    run(main())


def test_a_control_token_has_no_place_in_the_echoed_text():
    """The fake engine puts one before a text; the offsets of the others are those of the text."""

    async def main() -> None:
        async with client(FakeEngine()) as api:
            reply = await api.completions.create(
                model="m", prompt="Hello world", max_tokens=0, logprobs=0, echo=True
            )
        assert reply.choices[0].logprobs.tokens == ["", "Hello", " wor", "ld"]
        assert reply.choices[0].logprobs.text_offset == [0, 0, 5, 9]
        assert reply.usage.completion_tokens == 0

    run(main())


def test_answers_share_their_prompt_and_repeat():
    """With n and a seed the answers differ, and come again; the prompt is computed once."""

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            request: Any = {
                "model": "m", "prompt": TEXT * 3, "n": 4, "seed": 7, "max_tokens": 8,
                "temperature": 1.5, "extra_body": {"ignore_eos": True},
            }  # fmt: skip
            first = await api.completions.create(**request)
            again = await api.completions.create(**request)
            alone = await api.completions.create(**{**request, "n": 1, "seed": 9})
            num_prompt_tokens = len(llm.tokenizer.encode(TEXT * 3, add_special=True))
        texts = [choice.text for choice in first.choices]
        assert len(set(texts)) > 1
        assert [choice.text for choice in again.choices] == texts
        assert alone.choices[0].text == texts[2]
        assert first.usage.prompt_tokens == num_prompt_tokens
        assert first.usage.completion_tokens <= 32

    run(main())


def test_best_of_keeps_the_most_probable():
    """Of best_of answers the n best come, best first; all are paid for."""

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            request: Any = {
                "model": "m", "prompt": TEXT, "seed": 3, "max_tokens": 6, "temperature": 1.5,
                "extra_body": {"ignore_eos": True},
            }  # fmt: skip
            every = await api.completions.create(**request, n=4, logprobs=0)
            ranked = sorted(
                every.choices, key=lambda c: sum(c.logprobs.token_logprobs), reverse=True
            )
            reply = await api.completions.create(**request, n=2, best_of=4)
        assert [choice.text for choice in reply.choices] == [c.text for c in ranked[:2]]
        assert [choice.index for choice in reply.choices] == [0, 1]
        assert reply.choices[0].logprobs is None
        assert reply.usage.completion_tokens == 24

    run(main())


def test_best_of_ranks_by_the_mean():
    """A long answer is not worse for its length."""

    def scored(*values: float) -> Answer:
        answer = Answer()
        top: tuple[tuple[int, float], ...] = ()
        answer.add(OutputChunk("r", logprobs=tuple(TokenLogprob(1, v, top) for v in values)))
        return answer

    answers = [scored(-3.0), scored(-1.0, -1.0, -1.5, -1.0), scored(-2.0)]
    assert best(answers, 2, 10) == [11, 12]
    assert best(answers, 3, 10) == [10, 11, 12]


def test_usage_can_come_with_every_chunk():
    """vLLM's continuous_usage_stats count up to the usage at the end."""

    async def main() -> None:
        messages: Any = [{"role": "user", "content": "Hi"}]
        options: Any = {"include_usage": True, "continuous_usage_stats": True}
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            for stream in (
                await api.chat.completions.create(
                    model="m", messages=messages, max_tokens=3, stream=True, stream_options=options
                ),
                await api.completions.create(
                    model="m", prompt=["Hi", "there"], max_tokens=3, stream=True,
                    stream_options=options,
                ),
            ):  # fmt: skip
                usages = [chunk.usage async for chunk in stream]
                totals = [usage.completion_tokens for usage in usages]
                assert totals == sorted(totals)
                assert {usage.prompt_tokens for usage in usages} == {usages[-1].prompt_tokens}

    run(main())


class LateEngine(FakeEngine):
    """Runs out of time with two of three answers unfinished."""

    async def _run(self, prompt: Any, params: Any) -> Any:
        yield OutputChunk("r", "a", (1,), index=0)
        yield OutputChunk("r", "b", (1,), index=1)
        usage = Usage(7, 3, 1)
        yield OutputChunk("r", "", (2,), index=0, finish_reason="timeout", usage=usage)


@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_of_a_late_request_has_an_end(stream: bool):
    """The engine ends a late request with one word; each choice is told that it was cut."""

    async def main() -> None:
        async with client(LateEngine()) as api:
            reply: Any = await api.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hi"}], n=3, stream=stream,
                extra_body={"timeout": 1},
            )  # fmt: skip
            chunks = [chunk async for chunk in reply] if stream else [reply]
        ends = [
            (choice.index, choice.finish_reason)
            for chunk in chunks
            for choice in chunk.choices
            if choice.finish_reason
        ]
        assert ends == [(0, "length"), (1, "length"), (2, "length")]
        if not stream:
            assert reply.usage.completion_tokens == 2

    run(main())


def test_echo_of_a_late_request_is_without_log_probabilities():
    """Time may run out before the prompt has any."""

    class Late(FakeEngine):
        async def _run(self, prompt: Any, params: Any) -> Any:
            yield OutputChunk("r", finish_reason="timeout", usage=Usage(2, 0, 0))

    async def main() -> None:
        async with client(Late()) as api:
            request: Any = {
                "model": "m", "prompt": [1, 2], "max_tokens": 0, "echo": True, "logprobs": 1,
            }  # fmt: skip
            reply = await api.completions.create(**request)
            chunks = [c async for c in await api.completions.create(**request, stream=True)]
        for choice in (reply.choices[0], chunks[0].choices[0]):
            assert choice.text == "Hello wor"
            assert choice.logprobs.token_logprobs == [None, None]
            assert choice.finish_reason == "length"
        assert reply.usage.completion_tokens == 0

    run(main())


def test_keep_alive_is_honoured():
    """A request on /v1 may let the model go, or hold it for ever."""

    async def main() -> None:
        engine = FakeEngine()
        async with serving({"m": engine}) as server, httpx.AsyncClient() as http:
            body = {"model": "m", "prompt": "Hi"}
            for keep_alive in ("5m", -1, 0):
                reply = await http.post(
                    f"{server.url}/v1/completions", json={**body, "keep_alive": keep_alive}
                )
                assert reply.status_code == 200
                assert engine.is_closed is (keep_alive == 0)

    run(main())


def test_prompts_can_be_counted():
    """The count is that of the usage, without an answer."""

    async def main() -> None:
        messages: Any = [{"role": "user", "content": "Hi there"}]
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            for body in ({}, {"tools": [tool]}):
                reply = await api.chat.completions.create(
                    model="m", messages=messages, max_tokens=1, extra_body=body
                )
                counted = await api.post(
                    "/chat/completions/input_tokens",
                    body={"model": "m", "messages": messages, **body},
                    cast_to=httpx.Response,
                )
                assert counted.json()["input_tokens"] == reply.usage.prompt_tokens

    run(main())


def _greedy(max_tokens: int) -> Any:
    from quintet import SamplingParams

    return SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)
