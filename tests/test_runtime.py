"""What LLM and AsyncLLM share."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from engine.fake import FakeExecutor, make_engine, make_request
from engine.tiny_model import write_tiny_model
from quintet import LLM, AsyncLLM, RequestOutput, SamplingParams
from quintet.engine.thread import EngineThread
from quintet.engine.worker import process
from quintet.errors import CapacityError
from quintet.runtime import Batch


def test_batch_fails_when_others_fill_the_queue() -> None:
    """With nothing of its own to wait for, a batch passes the refusal on."""
    gate = threading.Event()
    client = EngineThread(make_engine(FakeExecutor(gate=gate), max_num_seqs=1, max_queue=0))
    client.submit(make_request(5))
    with Batch(client, [make_request(5)]) as batch, pytest.raises(CapacityError):
        batch.next()
    gate.set()
    client.close()


def test_batch_submits_as_room_allows_and_keeps_the_order() -> None:
    """Requests beyond the queue wait in the batch until some of it are done."""
    client = EngineThread(make_engine(max_num_seqs=2, max_queue=1))
    requests = [make_request(5 + i, 3) for i in range(20)]
    done = []
    with Batch(client, requests) as batch:
        while (following := batch.next()) is not None:
            request, stream = following
            assert len(list(stream)) == 3
            done.append(request)
    assert done == requests
    client.close()


def test_isolated_models_answer_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LLM and AsyncLLM give the same bits from a process; long batches are read whole."""
    monkeypatch.setattr(process, "MAX_UNREAD_CHUNKS", 10)
    write_tiny_model(tmp_path / "tiny.gguf")
    monkeypatch.chdir(tmp_path)
    prompts, params = ["one", "two", "three"], SamplingParams(max_tokens=100, seed=3)

    def contents(outputs: list[RequestOutput]) -> list[tuple[object, ...]]:
        return [(output.text, output.token_ids, output.usage) for output in outputs]

    async def ask() -> list[RequestOutput]:
        async with AsyncLLM("tiny.gguf", isolated=True) as llm:
            return await llm.generate(prompts, params)

    with LLM("tiny.gguf") as llm, LLM("tiny.gguf", isolated=True) as isolated:
        expected = contents(llm.generate(prompts, params))
        assert contents(isolated.generate(prompts, params)) == expected
        assert isolated.limits == llm.limits
    assert contents(asyncio.run(ask())) == expected


def test_batch_aborts_what_is_unfinished_when_it_is_left() -> None:
    """Leaving early ends every request that was submitted."""
    client = EngineThread(make_engine(FakeExecutor(step_s=0.02)))
    with Batch(client, [make_request(5, None) for _ in range(4)]) as batch:
        following = batch.next()
        assert following is not None
        _, stream = following
        next(stream)
    assert list(stream)[-1].finish_reason == "abort"
    while client.stats().num_aborted < 4:  # the test's timeout ends this
        time.sleep(0.001)
    client.close()
