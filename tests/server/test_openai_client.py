"""The official openai package against a server on a socket."""

from __future__ import annotations

import asyncio

import openai
import pytest

from quintet.errors import CapacityError, ContextLengthError
from quintet.server.keys import ApiKey

from .fake import FakeEngine
from .harness import run, serving

MESSAGES = [{"role": "user", "content": "Hi"}]


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_chat_answers():
    """A chat completion comes back whole, with its finish reason and usage."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server, client(server.url) as api:
            reply = await api.chat.completions.create(model="m", messages=MESSAGES)
        assert reply.choices[0].message.content == "Hello world!"
        assert reply.choices[0].message.role == "assistant"
        assert reply.choices[0].finish_reason == "stop"
        assert reply.model == "m"
        assert reply.usage.prompt_tokens == 7
        assert reply.usage.prompt_tokens_details.cached_tokens == 3
        assert reply.usage.completion_tokens == 5
        assert reply.usage.total_tokens == 12

    run(main())


def test_chat_streams_in_openai_order():
    """A stream is role, deltas, finish, usage, all with one id."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server, client(server.url) as api:
            stream = await api.chat.completions.create(
                model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
        first, *deltas, finish, usage = chunks
        assert first.choices[0].delta.role == "assistant"
        assert first.choices[0].delta.content == ""
        assert [d.choices[0].delta.content for d in deltas] == ["Hello", " wor", "ld", "!"]
        assert finish.choices[0].finish_reason == "stop"
        assert finish.choices[0].delta.content is None
        assert usage.choices == []
        assert usage.usage.completion_tokens == 5
        assert all(chunk.usage is None for chunk in chunks[:-1])

    run(main())


def test_synchronous_client_streams():
    """The synchronous client reads the same stream."""

    async def main() -> str:
        async with serving({"m": FakeEngine()}) as server:
            api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")

            def read() -> str:
                with (
                    api,
                    api.chat.completions.create(
                        model="m", messages=MESSAGES, stream=True
                    ) as stream,
                ):
                    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

            return await asyncio.to_thread(read)

    assert run(main()) == "Hello world!"


def test_n_answers_stream_side_by_side():
    """With n, every choice has its own role, text and end."""

    async def main() -> None:
        engine = FakeEngine()
        async with serving({"m": engine}) as server, client(server.url) as api:
            stream = await api.chat.completions.create(
                model="m", messages=MESSAGES, n=3, seed=5, stream=True
            )
            texts = ["", "", ""]
            ends = []
            async for chunk in stream:
                choice = chunk.choices[0]
                texts[choice.index] += choice.delta.content or ""
                ends += [choice.index] if choice.finish_reason else []
        assert texts == ["Hello world!"] * 3
        assert sorted(ends) == [0, 1, 2]
        assert [(params.n, params.seed) for params in engine.params] == [(3, 5)]

    run(main())


def test_chat_logprobs():
    """Log probabilities cover the text's tokens and leave out the stop token."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server, client(server.url) as api:
            reply = await api.chat.completions.create(
                model="m", messages=MESSAGES, logprobs=True, top_logprobs=2
            )
        content = reply.choices[0].logprobs.content
        assert [item.token for item in content] == ["Hello", " wor", "ld", "!"]
        assert content[0].bytes == list(b"Hello")
        assert [top.logprob for top in content[1].top_logprobs] == [-0.25, -9999.0]

    run(main())


def test_completions_answer_each_prompt():
    """Several prompts give choices in the prompts' order, n each; the prompt counts once."""

    async def main() -> None:
        engine = FakeEngine()
        async with serving({"m": engine}) as server, client(server.url) as api:
            reply = await api.completions.create(
                model="m", prompt=["a", "b"], n=2, max_tokens=2, logprobs=1
            )
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        assert {choice.text for choice in reply.choices} == {"Hello wor"}
        assert {choice.finish_reason for choice in reply.choices} == {"length"}
        assert reply.usage.prompt_tokens == 14
        assert reply.usage.completion_tokens == 8
        assert sorted(engine.prompts) == ["a", "b"]
        assert reply.choices[0].logprobs.tokens == ["Hello", " wor"]
        assert reply.choices[0].logprobs.text_offset == [0, 5]
        assert reply.choices[0].logprobs.top_logprobs == [{"Hello": -0.25}, {" wor": -0.25}]

    run(main())


def test_completions_stream():
    """A streamed completion ends with the finish reason on its last text chunk."""

    async def main() -> None:
        engine = FakeEngine()
        async with serving({"m": engine}) as server, client(server.url) as api:
            stream = await api.completions.create(
                model="m", prompt=[1, 2, 3], max_tokens=20, stream=True, logprobs=0
            )
            chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello world!"
        assert chunks[-1].choices[0].finish_reason == "stop"
        offsets = [
            offset for c in chunks for offset in getattr(c.choices[0].logprobs, "text_offset", [])
        ]
        assert offsets == [0, 5, 9, 11, 12]  # the last one is the stop token's
        assert engine.prompts == [[1, 2, 3]]

    run(main())


def test_models_are_listed():
    """Loaded models can be listed, and asked for one by one."""

    async def main() -> None:
        engines = {"a/b": FakeEngine(), "c": FakeEngine()}
        async with serving(engines) as server, client(server.url) as api:
            assert [model.id async for model in await api.models.list()] == ["a/b", "c"]
            assert (await api.models.retrieve("a/b")).owned_by == "quintet"
            with pytest.raises(openai.NotFoundError):
                await api.models.retrieve("d")

    run(main())


def test_unknown_model_is_404():
    """A model that is not loaded is a 404 with code model_not_found."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server, client(server.url) as api:
            with pytest.raises(openai.NotFoundError) as caught:
                await api.chat.completions.create(model="x", messages=MESSAGES)
        assert caught.value.code == "model_not_found"

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_context_overflow_is_400(stream: bool):
    """A prompt that is too long is a real 400, also for a stream, and says both numbers."""

    async def main() -> None:
        engine = FakeEngine(error=ContextLengthError(5000, 4096))
        async with serving({"m": engine}) as server, client(server.url) as api:
            with pytest.raises(openai.BadRequestError) as caught:
                await api.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.body["n_prompt_tokens"] == 5000
        assert caught.value.body["n_ctx"] == 4096

    run(main())


def test_full_queue_is_503_with_retry_after():
    """A full queue is a 503 that says when to come back."""

    async def main() -> None:
        engine = FakeEngine(error=CapacityError("full", resource="queue", retry_after_s=2.5))
        async with serving({"m": engine}) as server, client(server.url) as api:
            with pytest.raises(openai.InternalServerError) as caught:
                await api.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert caught.value.status_code == 503
        assert caught.value.response.headers["retry-after"] == "3"

    run(main())


def test_failure_in_a_stream_reaches_the_client():
    """A step that fails after the first byte ends the stream with an error, not with a finish."""

    async def main() -> None:
        async with serving({"m": FakeEngine(error_after=2)}) as server, client(server.url) as api:
            stream = await api.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            texts = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
            assert texts == ["", "Hello", " wor"]
            with pytest.raises(openai.APIError, match="the step failed"):
                await anext(stream)

    run(main())


def test_wrong_key_is_401():
    """With keys set, the client needs one of them."""

    async def main() -> None:
        digests = (ApiKey.of("one"), ApiKey.of("two"))
        engines = {"m": FakeEngine()}
        async with serving(engines, keys=digests) as server, client(server.url) as api:
            with pytest.raises(openai.AuthenticationError):
                await api.models.list()
            reply = await api.with_options(api_key="two").chat.completions.create(
                model="m", messages=MESSAGES
            )
        assert reply.choices[0].message.content == "Hello world!"

    run(main())
