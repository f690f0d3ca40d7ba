"""A program that uses two faces at once has the model once."""

from __future__ import annotations

import asyncio

import quintet
from nano_qwen3_serving import LLM, AsyncLLM, SamplingParams


def test_two_faces_share_one_loaded_model():
    """One engine's blocks and counters, which ends with the last user."""

    async def main() -> None:
        with LLM(device="cpu") as nano, quintet.LLM("demo", shared=True) as other:
            async with AsyncLLM(device="cpu") as async_nano:
                params = SamplingParams.greedy(4)
                num_before = other.stats().num_requests
                nano.generate(["a", "b"], params)
                await async_nano.generate("c", params)
                other.generate("d", quintet.SamplingParams.greedy(4))
                assert other.stats().num_requests == num_before + 4
                assert nano.get_stats()["requests_served"] == 2, "each counts its own"
                assert (await async_nano.get_stats())["requests_served"] == 1
            nano.shutdown()
            other.generate("e", quintet.SamplingParams.greedy(4))

    asyncio.run(main())
