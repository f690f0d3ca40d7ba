"""nano_qwen3_serving.AsyncLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from nano_qwen3_serving import LLM, AsyncLLM, RequestPriority, SamplingParams
from nano_qwen3_serving.exceptions import (
    GenerationError,
    InvalidParametersError,
    ModelLoadError,
    QueueFullError,
)

GREEDY = SamplingParams.greedy(8)
PROMPTS = ["Hello", "Once upon", "What is AI?", "Tell a story", "How are you?"]


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


def expected() -> list[str]:
    with LLM(device="cpu") as llm:
        return [result["generated_text"] for result in llm.generate(PROMPTS, GREEDY)]


def test_the_same_answers_as_the_synchronous_one():
    """generate(prompts, sampling_params, priority), generate_batch, generate_stream, chat."""

    async def main() -> None:
        async with AsyncLLM(model_name="Qwen/Qwen3-0.6B", device="cpu") as llm:
            texts = expected()
            single = await llm.generate(
                prompts="Hello", sampling_params=GREEDY, priority=RequestPriority.HIGH
            )
            assert single["generated_text"] == texts[0]
            listed = await llm.generate(PROMPTS, GREEDY)
            assert [result["generated_text"] for result in listed] == texts
            batch = await llm.generate_batch(
                prompts=PROMPTS, sampling_params=GREEDY, batch_size=2, priority=RequestPriority.LOW
            )
            assert [result["generated_text"] for result in batch] == texts
            together = await asyncio.gather(*(llm.generate(p, GREEDY) for p in PROMPTS))
            assert [result["generated_text"] for result in together] == texts
            chunks = [
                chunk
                async for chunk in llm.generate_stream(
                    prompt="Once upon", sampling_params=GREEDY, priority=RequestPriority.NORMAL
                )
            ]
            assert chunks[-1]["text"] == texts[1]
            assert chunks[-1]["finished"]
            hello = [{"role": "user", "content": "Hello!"}]
            chat = await llm.chat(hello, SamplingParams.greedy(20))
            said = [c["token"] async for c in llm.chat_stream(hello, SamplingParams.greedy(20))]
            assert "".join(said) == chat["generated_text"]
            beams = SamplingParams(use_beam_search=True, num_beams=2, max_tokens=6)
            found = await llm.generate("Once upon", beams)
            streamed = [c async for c in llm.generate_stream("Once upon", beams)]
            assert streamed[-1]["text"] == found["generated_text"]

    run(main())


def test_batches_are_no_larger_than_asked_for():
    """generate_batch(batch_size=2) has two requests in the engine at most."""

    async def main() -> None:
        async with AsyncLLM(device="cpu") as llm:
            seen = []
            task = asyncio.ensure_future(llm.generate_batch(PROMPTS, GREEDY, batch_size=2))
            while not task.done():
                seen.append((await llm.get_stats())["active_requests"])
                await asyncio.sleep(0)
            assert max(seen) == 2
            with pytest.raises(InvalidParametersError, match="batch_size"):
                await llm.generate_batch(PROMPTS, batch_size=0)

    run(main())


async def result_of(llm: AsyncLLM, request_id: int) -> dict[str, Any]:
    while (result := await llm.get_result(request_id=request_id)) is None:
        await asyncio.sleep(0.005)
    return result


def test_submitted_requests_are_fetched_later():
    """submit_request(prompt, sampling_params, priority) gives the id that get_result takes."""

    async def main() -> None:
        async with AsyncLLM(device="cpu", worker_count=1) as llm:
            texts = expected()
            ids = [
                await llm.submit_request(
                    prompt=prompt, sampling_params=GREEDY, priority=RequestPriority.NORMAL
                )
                for prompt in PROMPTS
            ]
            assert len(set(ids)) == len(ids)
            assert await llm.get_result(ids[-1]) is None
            results = [await result_of(llm, request_id) for request_id in ids]
            assert [result["request_id"] for result in results] == ids
            assert [result["generated_text"] for result in results] == texts
            assert await llm.get_result(ids[0]) == results[0], "may be asked for again"
            assert await llm.get_result(10**9) is None

    run(main())


def test_workers_take_the_most_urgent_request():
    """With AsyncLLM(worker_count=1) they are served one by one, by priority."""

    async def main() -> None:
        async with AsyncLLM(device="cpu", worker_count=1) as llm:
            levels = [RequestPriority.LOW, RequestPriority.NORMAL, RequestPriority.HIGH]
            low, normal, high = [
                await llm.submit_request("Hello", GREEDY, priority=level) for level in levels
            ]
            ended: list[int] = []
            while len(ended) < 3:
                for request_id in (low, normal, high):
                    if request_id not in ended and await llm.get_result(request_id) is not None:
                        ended.append(request_id)
                await asyncio.sleep(0)
            assert ended == [high, normal, low]

    run(main())


def test_the_queue_has_an_end():
    """AsyncLLM(max_queue_size=1) refuses what comes on top, submitted or awaited."""

    async def main() -> None:
        async with AsyncLLM(device="cpu", max_queue_size=1) as llm:
            first = await llm.submit_request("Hello", GREEDY)
            with pytest.raises(QueueFullError):
                await llm.submit_request("Hello", GREEDY)
            await result_of(llm, first)
            with pytest.raises(QueueFullError):
                await llm.generate(["a", "b"], GREEDY)
            second = await llm.submit_request("Hello", GREEDY)
            assert await llm.get_result(first) is None, "made room for"
            await result_of(llm, second)

    run(main())


def test_sizes_are_those_asked_for():
    """AsyncLLM(dtype, num_blocks, block_size, max_seq_length), as for LLM; clear_stats."""

    async def main() -> None:
        llm = AsyncLLM(
            device="cpu", dtype="float32", num_blocks=4, block_size=32, max_seq_length=20
        )
        await llm.start()
        result = await llm.generate("Once upon a time", SamplingParams.greedy(100))
        assert result["total_tokens"] == 20
        assert llm.get_model_info()["max_seq_length"] == 20
        assert (await llm.get_stats())["requests_served"] == 1
        await llm.clear_stats()
        assert (await llm.get_stats())["requests_served"] == 0
        await llm.shutdown()

    run(main())


def test_failures_reach_those_who_wait():
    """Wrong prompts and models, and a shutdown with requests under way."""

    async def main() -> None:
        with pytest.raises(InvalidParametersError, match="worker_count"):
            AsyncLLM(worker_count=0)
        with pytest.raises(ModelLoadError):
            await AsyncLLM("no/such-model", device="cpu").start()
        llm = AsyncLLM(device="cpu", worker_count=1)
        with pytest.raises(GenerationError, match="not loaded"):
            llm.get_model_info()
        with pytest.raises(InvalidParametersError):
            await llm.submit_request("word " * 3000)
        ids = [await llm.submit_request("Once upon", SamplingParams.greedy(500)) for _ in "ab"]
        await asyncio.sleep(0.01)
        await llm.shutdown()
        await llm.shutdown()
        with pytest.raises(GenerationError, match="shut down"):
            await llm.generate("Hello")
        for request_id in ids:
            with pytest.raises(GenerationError, match="shut down"):
                await llm.get_result(request_id)

    run(main())


def test_a_batch_that_fails_leaves_its_places():
    """A full queue refuses it; what it had in the queue by then is gone."""

    async def main() -> None:
        async with AsyncLLM(device="cpu", max_queue_size=2) as llm:
            with pytest.raises(QueueFullError):
                await llm.generate_batch(["a", "b", "c"], GREEDY, batch_size=3)
            assert (await llm.get_stats())["active_requests"] == 0
            assert len(await llm.generate(["a", "b"], GREEDY)) == 2

    run(main())
