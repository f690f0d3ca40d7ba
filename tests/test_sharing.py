"""One loaded model for all who ask for it in a process."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quintet import LLM, AsyncLLM, EngineError, SamplingParams, sharing
from quintet.hub.packaged import packaged_models
from quintet.runtime import Runtime


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Runtime]]:
    """The runtimes that are loaded, in order."""
    loaded: list[Runtime] = []
    load = Runtime.load

    def counted(*args, **kwargs):
        loaded.append(load(*args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(Runtime, "load", counted)
    yield loaded
    assert all(runtime.client.is_closed for runtime in loaded), "a model is left in memory"


def answer(llm: LLM) -> str:
    return llm.generate("Once upon", SamplingParams.greedy(4))[0].text


def test_two_users_share_one_engine_until_the_last_one_closes(loads: list[Runtime]):
    """The same file by another name is the same model; closing ends only one's own use."""
    first = LLM("demo", shared=True)
    second = LLM(packaged_models()["demo"], shared=True, kv_dtype="bfloat16")
    assert len(loads) == 1
    text = answer(first)
    assert second.stats().num_requests == 1, "one engine's counters"
    first.close()
    first.close()
    assert first.is_closed
    assert first.state == "closed"
    with pytest.raises(EngineError, match="closed"):
        first.generate("Hello")
    assert answer(second) == text
    second.close()


def test_the_next_one_after_the_last_loads_again(loads: list[Runtime]):
    """Nothing is kept for later."""
    for _ in range(2):
        with LLM("demo", shared=True) as llm:
            answer(llm)
    assert len(loads) == 2


def test_those_who_ask_at_once_load_once(loads: list[Runtime]):
    """Eight threads, one loaded model, which ends with the last of them."""
    barrier, found = threading.Barrier(8), []

    def use() -> None:
        barrier.wait()
        with LLM("demo", shared=True) as llm:
            found.append(answer(llm))
            barrier.wait()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(loads) == 1


def test_coming_and_going_keeps_the_count(loads: list[Runtime]):
    """Users that come while others leave never get an engine that is closed."""

    def use() -> None:
        for _ in range(10):
            with LLM("demo", shared=True) as llm:
                answer(llm)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads
    assert not any(pool.held for pool in sharing._pools.values())


@pytest.mark.parametrize(
    ("held", "wanted", "is_shared"),
    [
        ({}, {"max_model_len": 512}, True),
        ({"max_model_len": 512}, {}, False),
        ({"max_model_len": 512}, {"max_model_len": 1024}, False),
        ({"num_kv_blocks": 256}, {"num_kv_blocks": 128}, True),
        ({"num_kv_blocks": 256}, {}, True),  # 4096 tokens, the model takes 2048
        ({"num_kv_blocks": 64}, {}, False),
        ({"num_kv_blocks": 64}, {"max_model_len": 512}, True),
        ({"num_kv_blocks": 64}, {"num_kv_blocks": 65, "max_model_len": 512}, False),
        ({"num_kv_blocks": 256}, {"kv_cache_bytes": 2**20}, True),
        ({"num_kv_blocks": 256}, {"kv_cache_bytes": 2**26}, False),
        ({"max_queue": 8}, {}, False),
        ({}, {"max_queue": 8}, True),
        ({"max_num_seqs": 2}, {"max_num_seqs": 3}, False),
        ({}, {"dtype": "float32"}, False),
        ({}, {"kv_dtype": "int8"}, False),
        ({}, {"num_threads": 1}, False),
        ({}, {"enable_prefix_cache": False}, False),
        ({}, {"ngram_speculation": True}, False),
        ({}, {"seed": 1}, False),
        ({"seed": 1}, {"seed": 1}, False),
    ],
)
def test_what_serves_whom(loads: list[Runtime], held: dict, wanted: dict, is_shared: bool):
    """A loaded model serves those whose sizes it satisfies, in the same formats."""
    with LLM("demo", shared=True, **held) as first, LLM("demo", shared=True, **wanted) as second:
        assert (len(loads) == 1) is is_shared
        if wanted.get("max_model_len"):
            assert second.limits.max_model_len >= wanted["max_model_len"]
        assert answer(first)


def test_sharing_is_asked_for(loads: list[Runtime]):
    """Without it a model is nobody else's."""
    with LLM("demo"), LLM("demo", shared=True), LLM("demo"):
        assert len(loads) == 3


def test_an_engine_that_failed_is_not_handed_out(loads: list[Runtime]):
    """The next user loads another."""
    first = LLM("demo", shared=True)
    loads[0].client.close()
    assert first.is_closed
    with LLM("demo", shared=True) as second:
        assert len(loads) == 2
        assert answer(second)
    first.close()


def test_closing_ends_ones_own_requests_only(loads: list[Runtime]):
    """The other's stream goes on."""
    first, second = LLM("demo", shared=True), LLM("demo", shared=True)
    params = SamplingParams(max_tokens=400, ignore_eos=True)
    mine, others = first.stream("Hello", params), second.stream("Hello", params)
    next(mine), next(others)
    first.close()
    assert [chunk.finish_reason for chunk in mine][-1] == "abort"
    assert [chunk.finish_reason for chunk in others][-1] == "length"
    second.close()


def test_users_that_are_forgotten_count_no_more(loads: list[Runtime]):
    """Nobody calls close, and yet the model goes."""
    llm = LLM("demo", shared=True)
    answer(llm)
    del llm
    gc.collect()
    assert loads[0].client.is_closed


def test_a_failed_load_leaves_nothing_behind(tmp_path: Path):
    """The next one tries again."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF")
    for _ in range(2):
        with pytest.raises(Exception, match=r"x\.gguf"):
            LLM(path, shared=True)


def test_asyncio_programs_share_too(loads: list[Runtime]):
    """AsyncLLM and LLM have one engine; ids of requests stay unique."""

    async def main() -> None:
        async with AsyncLLM("demo", shared=True) as one, AsyncLLM("demo", shared=True) as two:
            with LLM("demo", shared=True) as three:
                params = SamplingParams.greedy(4)
                answers = await asyncio.gather(
                    *(llm.generate("Hello", params) for llm in (one, two) for _ in range(4)),
                    asyncio.to_thread(three.generate, "Hello", params),
                )
                assert len({a[0].text for a in answers}) == 1
                assert len({a[0].request_id for a in answers}) == 9
            output = await two.embed(["a"])
            assert len(output.embeddings) == 1

    asyncio.run(main())
    assert len(loads) == 1
