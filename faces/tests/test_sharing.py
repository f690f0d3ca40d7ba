"""A program that uses two faces at once has the model once."""

from __future__ import annotations

import asyncio
import threading

import oprel
import quintet
import woolly
from densecore import DenseCore
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


def test_four_faces_share_one_loaded_model():
    """Each counts the others' requests among its engine's, and one thread serves them all."""

    def engine_threads() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if each.name == "quintet-engine"}

    others = engine_threads()  # of fixtures that are still there
    with (
        DenseCore("demo") as dense,
        LLM(device="cpu") as nano,
        woolly.Engine(woolly.EngineConfig()) as engine,
        oprel.Model("demo", use_server=False) as model,
    ):
        engine.load_model("demo")
        before = dense.get_metrics()["total_requests"]
        dense.generate("a", max_tokens=1)
        nano.generate("b", SamplingParams.greedy(1))
        asyncio.run(engine.create_session().generate("c", 1, 0.0, 0.9))
        model.generate("d", max_tokens=1)
        assert dense.get_metrics()["total_requests"] == before + 4
        assert len(engine_threads() - others) <= 1
