"""EngineProcess: the thread's behaviour, from another process."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.fake import make_request
from engine.tiny_model import write_tiny_model
from quintet.config import EngineConfig
from quintet.engine.client import EngineClient
from quintet.engine.loading import ModelOptions, load
from quintet.engine.output import OutputChunk
from quintet.engine.request import Request
from quintet.engine.thread import EngineThread
from quintet.engine.worker import process as process_module
from quintet.engine.worker.process import EngineProcess
from quintet.errors import (
    CapacityError,
    ContextLengthError,
    EngineError,
    ModelFormatError,
    QuintetError,
    RequestError,
    UnsupportedModelError,
)

from .conftest import DEMO, NewProcess, endless, is_running, occupy, rss_bytes, start, wait_until


@pytest.fixture(scope="module")
def thread() -> Iterator[EngineThread]:
    """The same model in a thread."""
    with_demo = EngineThread(load(DEMO, ModelOptions(num_threads=1), EngineConfig(seed=0)).engine)
    yield with_demo
    with_demo.close()


def content(chunks: list[OutputChunk]) -> tuple[object, ...]:
    """All of a request's answers but their timings."""
    plain = [dataclasses.replace(chunk, timings=None) for chunk in chunks]
    # Chunks of one step may come in any order of the answers.
    return tuple(sorted(plain, key=lambda chunk: chunk.index))


def tokens(chunks: list[OutputChunk]) -> list[int]:
    """Of one answer."""
    return [token for chunk in chunks for token in chunk.token_ids]


def test_process_is_an_engine_client(client: EngineProcess) -> None:
    """The process has all that the interface names."""
    names = [name for name in vars(EngineClient) if not name.startswith("_")]
    assert names
    assert all(hasattr(client, name) for name in names)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ignore_eos": False, "max_tokens": None},
        {"temperature": 1.0, "seed": 7},
        {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "seed": 2**64 - 1},
        {"temperature": 1.3, "seed": -1, "repetition_penalty": 1.2, "presence_penalty": 0.5},
        {"logprobs": 20, "logit_bias": {7: -100.0, 9: 3.5}},
        {"stop": ["e", " the"], "include_stop_str_in_output": True, "min_tokens": 3},
        {"stop_token_ids": list(range(500)), "min_tokens": 2},
        {"n": 4, "temperature": 1.2, "seed": 5, "prompt_logprobs": 3},
        {"temperature": 1.0, "seed": 1, "typical_p": 0.9, "dry_multiplier": 0.8},
        {"temperature": 1.0, "seed": 1, "mirostat": 2, "logprobs": 0},
        {"temperature": 1.0, "seed": 1, "xtc_probability": 0.5, "top_n_sigma": 2.0},
    ],
)
def test_process_gives_the_bits_of_a_thread(
    client: EngineProcess, thread: EngineThread, params: dict
) -> None:
    """Text, tokens, log probabilities, reasons and usage are those of the in-process engine."""
    prompts = [list(range(5, 5 + n)) for n in (1, 15, 16, 17, 40)]
    for prompt in prompts:
        request = make_request(prompt, **{"max_tokens": 24, **params}, cache_salt=str(params))
        ours, theirs = (list(engine.submit(request)) for engine in (client, thread))
        assert content(ours) == content(theirs)
        timings = ours[-1].timings
        assert min(timings.queue_s, timings.prefill_s, timings.decode_s) >= 0


def test_process_unseeded_requests_repeat_in_order_of_submission(new_process: NewProcess) -> None:
    """The engine's seed decides in the worker as it does in a thread."""
    requests = [make_request(9 + i, 12, temperature=1.5) for i in range(3)]
    thread = EngineThread(load(DEMO, ModelOptions(num_threads=1), EngineConfig(seed=0)).engine)
    expected = [content(list(thread.submit(request))) for request in requests]
    thread.close()
    client = new_process()
    assert [content(list(client.submit(request))) for request in requests] == expected


def test_process_serves_a_hundred_streams_at_once(
    client: EngineProcess, thread: EngineThread
) -> None:
    """Each of a hundred streams of an event loop is what it is alone."""
    requests = [make_request(1 + i, 20) for i in range(100)]

    async def read(request: Request) -> list[OutputChunk]:
        return [chunk async for chunk in client.submit(request)]

    async def main() -> list[list[OutputChunk]]:
        return await asyncio.gather(*map(read, requests))

    together = asyncio.run(main())
    for request, chunks in zip(requests, together, strict=True):
        assert [chunk.request_id for chunk in chunks] == [request.request_id] * 20
        assert tokens(chunks) == tokens(list(thread.submit(request)))


def test_process_abort_at_every_token(client: EngineProcess) -> None:
    """Wherever a stream is aborted, the books are right and its neighbour is what it is alone."""
    witness = make_request(30, 40)
    alone = tokens(list(client.submit(witness)))
    for num_read in range(24):
        neighbour = client.submit(make_request(30, 40))
        stream = client.submit(make_request(60, None, n=1 + num_read % 3))
        chunks = list(itertools.islice(stream, num_read))
        stream.abort()
        stream.abort()
        chunks += stream
        assert chunks[-1].finish_reason == "abort"
        assert tokens(list(neighbour)) == alone
        client.audit()
        assert client.stats().num_used_blocks == 0


def test_process_abort_in_the_queue_and_in_the_prompt(new_process: NewProcess) -> None:
    """A request that waits, or is read in chunks, is aborted like one that answers."""
    client = new_process(max_num_seqs=2, max_num_batched_tokens=32)
    for _ in range(5):
        streams = [client.submit(make_request(900 + i, None)) for i in range(6)]
        for stream in streams:
            stream.abort()
        assert [list(stream)[-1].finish_reason for stream in streams] == ["abort"] * 6
        client.audit()
    assert client.stats().num_used_blocks == 0
    assert client.stats().num_aborted == 30


def test_process_refuses_at_once_what_can_never_be_served(client: EngineProcess) -> None:
    """Errors of a request are raised by submit, with its numbers."""
    with pytest.raises(ContextLengthError) as caught:
        client.submit(make_request(3000))
    assert (caught.value.num_tokens, caught.value.max_tokens) == (3001, 2048)
    with pytest.raises(RequestError, match="prompt"):
        client.submit(make_request([]))
    with pytest.raises(RequestError, match="logit_bias"):
        client.submit(make_request(4, logit_bias={10**6: 1.0}))


def test_process_refuses_what_the_queue_cannot_hold(new_process: NewProcess) -> None:
    """One request beyond the bound is refused with a hint, an id in use is named."""
    client = new_process(max_num_seqs=2, max_queue=1)
    os.kill(client.pid or 0, signal.SIGSTOP)
    streams = [client.submit(make_request(4, request_id=name)) for name in "abc"]
    with pytest.raises(RequestError, match="'a' is in use"):
        client.submit(make_request(4, request_id="a"))
    with pytest.raises(CapacityError) as caught:
        client.submit(make_request(4))
    assert caught.value.resource == "request queue"
    assert (caught.value.retry_after_s or 0) >= 1
    os.kill(client.pid or 0, signal.SIGCONT)
    assert [len(list(stream)) for stream in streams] == [8, 8, 8]


def test_process_drops_a_reader_that_does_not_read(
    new_process: NewProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream holds so many chunks, then its request is aborted and its reader told."""
    monkeypatch.setattr(process_module, "MAX_UNREAD_CHUNKS", 10)
    client = new_process()
    stalled = client.submit(make_request(4, 500))
    patient = client.submit(make_request(4, 500))
    patient.max_unread_chunks = None
    wait_until(lambda: client.stats().num_finished == 2)
    assert len(list(patient)) == 500
    chunks = []
    with pytest.raises(EngineError, match="left 10 chunks unread"):
        chunks.extend(stalled)
    assert len(list(stalled)) == 0
    assert client.stats().num_aborted == 1
    client.audit()


def test_process_close_ends_streams_and_the_process(new_process: NewProcess) -> None:
    """Readers hear of it, the process is gone, nothing is taken any more; twice is once."""
    client = new_process()
    streams = occupy(client)
    pid = client.pid
    client.close()
    assert not is_running(pid)
    assert client.pid is None
    for stream in streams:
        with pytest.raises(EngineError, match="the engine was closed"):
            list(stream)
    with pytest.raises(EngineError, match="closed"):
        client.submit(make_request(4))
    with pytest.raises(EngineError, match="closed"):
        client.audit()
    before = client.stats()
    client.close()
    assert client.stats() == before
    assert (before.num_requests, before.num_finished, before.num_failed) == (48, 48, 48)


def test_process_close_ends_a_worker_that_hangs(
    new_process: NewProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that does not listen is killed after the grace."""
    monkeypatch.setattr(process_module, "CLOSE_GRACE_S", 0.2)
    client = new_process()
    stream = client.submit(endless())
    pid = client.pid
    os.kill(pid or 0, signal.SIGSTOP)
    started_s = time.monotonic()
    client.close()
    assert time.monotonic() - started_s < 2
    assert not is_running(pid)
    with pytest.raises(EngineError, match="closed"):
        list(stream)


def test_process_close_while_it_loads() -> None:
    """Nobody has to wait for a model that is no longer wanted."""
    client = EngineProcess(DEMO, ModelOptions(), EngineConfig())
    wait_until(lambda: client.pid is not None)
    pid = client.pid
    client.close()
    assert not is_running(pid)
    with pytest.raises(EngineError, match="closed"):
        client.wait_ready()
    with pytest.raises(EngineError, match="not loaded"):
        _ = client.limits


def test_process_unloading_returns_the_memory() -> None:
    """The worker's memory goes with it, and here nothing stays behind."""
    start(kv_cache_bytes=64 * 2**20).close()  # imports, and what allocators keep
    before = rss_bytes()
    for _ in range(3):
        client = start(kv_cache_bytes=64 * 2**20)
        for stream in [client.submit(make_request(4, 200)) for _ in range(8)]:
            list(stream)
        pid = client.pid
        assert rss_bytes(pid) > 20 * 2**20
        client.close()
        assert not is_running(pid)
    assert rss_bytes() - before < 8 * 2**20


def outcome(make: object) -> tuple[type, str, dict]:
    """What a failing call raises."""
    with pytest.raises(QuintetError) as caught:
        make()
    return type(caught.value), str(caught.value), vars(caught.value)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (ModelFormatError, EngineConfig()),
        (UnsupportedModelError, EngineConfig()),
        (CapacityError, EngineConfig(kv_cache_bytes=100)),
        (RequestError, EngineConfig(max_model_len=10**6)),
    ],
)
def test_process_load_errors_are_those_of_a_thread(
    tmp_path: Path, kind: type, config: EngineConfig
) -> None:
    """A model that cannot be loaded gives the same class, text and numbers from the worker."""
    path = tmp_path / "model.gguf"
    write_tiny_model(path)
    data = path.read_bytes()
    if kind is ModelFormatError:
        path.write_bytes(data[: len(data) // 2])
    if kind is UnsupportedModelError:
        path.write_bytes(data.replace(b"qwen3", b"qwenX", 1).replace(b"qwen3.", b"qwenX."))

    def load_in_process() -> None:
        load(path, ModelOptions(), config)

    def load_in_worker() -> None:
        client = EngineProcess(path, ModelOptions(), config)
        try:
            client.wait_ready()
        finally:
            client.close()

    expected = outcome(load_in_process)
    assert expected[0] is kind
    assert outcome(load_in_worker) == expected
