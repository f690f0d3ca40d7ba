"""The engine in a thread: submitted to from anywhere, read with for and async for."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from engine.fake import FakeDetokenizer, FakeExecutor, make_engine, make_request, run_alone
from quintet.engine.client import EngineClient
from quintet.engine.thread import EngineThread
from quintet.errors import CapacityError, ContextLengthError, EngineError, RequestError


@pytest.fixture
def client() -> Iterator[EngineThread]:
    """An engine thread over an ample fake model, audited when the test is over."""
    thread = EngineThread(make_engine())
    yield thread
    thread.close()
    thread._engine.audit()
    assert thread.stats().num_used_blocks == 0


@pytest.fixture
def slow_client() -> Iterator[EngineThread]:
    """One whose longest request takes 20 seconds, so that it cannot end by itself in a test."""
    thread = EngineThread(make_engine(FakeExecutor(step_s=0.02)))
    yield thread
    thread.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds up every step of a FakeExecutor made with it until it is set."""
    event = threading.Event()
    yield event
    event.set()


def test_thread_answers_like_the_engine_itself(client: EngineThread) -> None:
    """Chunks arrive in order and end with the last one."""
    request = make_request(20, 10)
    chunks = list(client.submit(request))
    assert [chunk.token_id for chunk in chunks] == list(run_alone(request).token_ids)
    assert [chunk.finish_reason for chunk in chunks] == [None] * 9 + ["length"]


def test_thread_is_an_engine_client(client: EngineThread) -> None:
    """The thread has all that the interface names."""
    names = [name for name in vars(EngineClient) if not name.startswith("_")]
    assert names
    assert all(hasattr(client, name) for name in names)


def test_thread_serves_eight_threads_at_once(client: EngineThread) -> None:
    """Requests of many threads get their own answers, bit for bit."""
    requests = [[make_request(1 + 9 * i + j, 15) for j in range(4)] for i in range(8)]
    answers: dict[str, tuple[int, ...]] = {}

    def ask(mine: list) -> None:
        streams = [client.submit(request) for request in mine]
        for stream in streams:
            answers[stream.request_id] = tuple(chunk.token_ids[0] for chunk in stream)

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for request in (request for mine in requests for request in mine):
        assert answers[request.request_id] == run_alone(request).token_ids


def test_thread_serves_an_event_loop(client: EngineThread) -> None:
    """Streams are read with async for, many at a time, and the loop stays free meanwhile."""
    requests = [make_request(1 + 9 * i, 15) for i in range(16)]

    async def read(request: object) -> tuple[int, ...]:
        return tuple([chunk.token_ids[0] async for chunk in client.submit(request)])

    async def main() -> list[tuple[int, ...]]:
        return await asyncio.gather(*map(read, requests))

    answers = asyncio.run(main())
    assert answers == [run_alone(request).token_ids for request in requests]


def test_thread_can_be_read_async_after_chunks_have_arrived(client: EngineThread) -> None:
    """A reader that comes late misses nothing."""
    request = make_request(5, 10)
    stream = client.submit(request)
    while client.stats().num_finished == 0:
        time.sleep(0.001)

    async def main() -> int:
        return len([chunk async for chunk in stream])

    assert asyncio.run(main()) == 10


def test_thread_refuses_at_once_what_can_never_be_served(client: EngineThread) -> None:
    """Errors of the request are raised by submit, not by the stream."""
    with pytest.raises(ContextLengthError):
        client.submit(make_request(64 * 16))
    with pytest.raises(RequestError, match="prompt"):
        client.submit(make_request([]))
    assert client.stats().num_requests == 0


def test_thread_refuses_what_the_queue_cannot_hold(gate: threading.Event) -> None:
    """One request beyond the bound is refused with a hint; there is room again afterwards."""
    engine = make_engine(FakeExecutor(gate=gate), max_num_seqs=2, max_queue=3)
    client = EngineThread(engine)
    streams = [client.submit(make_request(4, 3)) for _ in range(5)]
    with pytest.raises(CapacityError) as caught:
        client.submit(make_request(4))
    assert caught.value.resource == "request queue"
    assert (caught.value.retry_after_s or 0) >= 1
    gate.set()
    for stream in streams:
        assert len(list(stream)) == 3
    assert len(list(client.submit(make_request(4)))) == 8
    client.close()


def test_thread_refuses_an_id_in_use(gate: threading.Event) -> None:
    """Two unfinished requests cannot share an id."""
    client = EngineThread(make_engine(FakeExecutor(gate=gate)))
    first = client.submit(make_request(4, request_id="a"))
    with pytest.raises(RequestError, match="'a' is in use"):
        client.submit(make_request(4, request_id="a"))
    gate.set()
    list(first)
    list(client.submit(make_request(4, request_id="a")))
    client.close()


@pytest.mark.parametrize("num_read", [0, 1, 5])
def test_thread_abort_ends_a_stream(slow_client: EngineThread, num_read: int) -> None:
    """An aborted stream ends with "abort", whatever had been read of it."""
    stream = slow_client.submit(make_request(10, None))
    chunks = [next(stream) for _ in range(num_read)]
    stream.abort()
    stream.abort()
    chunks += stream
    assert chunks[-1].finish_reason == "abort"
    assert len(chunks) < 1000
    stream.abort()
    assert list(stream) == []
    assert slow_client.stats().num_aborted == 1


def test_thread_abort_before_the_first_step(gate: threading.Event) -> None:
    """A request still in the inbox can be aborted."""
    client = EngineThread(make_engine(FakeExecutor(gate=gate)))
    running = client.submit(make_request(4))
    stream = client.submit(make_request(10, None))
    stream.abort()
    gate.set()
    assert [chunk.finish_reason for chunk in stream] == ["abort"]
    assert len(list(running)) == 8
    client.close()


def test_thread_close_ends_streams_with_an_error(gate: threading.Event) -> None:
    """Whoever still reads when the engine closes hears of it, running or waiting."""
    executor = FakeExecutor(gate=gate)
    client = EngineThread(make_engine(executor, max_num_seqs=1))
    streams = [client.submit(make_request(10, None)) for _ in range(3)]
    closer = threading.Thread(target=client.close)
    closer.start()
    gate.set()
    closer.join()
    for stream in streams:
        with pytest.raises(EngineError, match="closed"):
            list(stream)
        assert list(stream) == []
    assert executor.num_closes == 1
    client.close()
    with pytest.raises(EngineError, match="closed"):
        client.submit(make_request(4))
    client._engine.audit()


def test_thread_close_wakes_an_async_reader(gate: threading.Event) -> None:
    """A task that waits for a chunk gets the error of a closed engine."""
    client = EngineThread(make_engine(FakeExecutor(gate=gate)))

    async def read() -> None:
        async for _ in client.submit(make_request(10, None)):
            pass

    async def main() -> None:
        reader = asyncio.ensure_future(read())
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.to_thread(client.close)
        with pytest.raises(EngineError, match="closed"):
            await reader

    asyncio.run(main())


def test_thread_survives_a_reader_whose_event_loop_is_gone(slow_client: EngineThread) -> None:
    """A stream nobody can read any more is aborted; the others go on."""

    async def main() -> object:
        stream = slow_client.submit(make_request(10, None))
        await stream.__anext__()
        return stream

    asyncio.run(main())
    while slow_client.stats().num_aborted == 0:
        time.sleep(0.001)
    assert len(list(slow_client.submit(make_request(10)))) == 8


def test_thread_a_failed_step_reaches_its_readers_only(caplog: pytest.LogCaptureFixture) -> None:
    """The reader of a failed request gets EngineError after the tokens it had; others go on."""
    caplog.set_level(logging.CRITICAL)
    client = EngineThread(make_engine(FakeExecutor(raise_at={4})))
    stream = client.submit(make_request(10))
    tokens = [next(stream).token_id for _ in range(3)]
    with pytest.raises(EngineError, match="RuntimeError"):
        next(stream)
    assert list(stream) == []
    request = make_request(10)
    assert tokens == list(run_alone(request).token_ids[:3])
    assert len(list(client.submit(request))) == 8
    client.close()


def test_thread_a_request_that_cannot_start_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    """An error while a sequence is set up is its stream's, and the loop goes on."""
    caplog.set_level(logging.CRITICAL)

    def new_detokenizer(prompt: Sequence[int], _: object) -> FakeDetokenizer:
        if len(prompt) == 7:
            raise IndexError("no such token")
        return FakeDetokenizer()

    client = EngineThread(make_engine(new_detokenizer=new_detokenizer))
    with pytest.raises(EngineError, match="no such token"):
        list(client.submit(make_request(7)))
    assert len(list(client.submit(make_request(8)))) == 8
    client.close()


def test_thread_a_broken_loop_ends_every_stream(caplog: pytest.LogCaptureFixture) -> None:
    """Should the loop itself fail, readers get an error and later requests are refused."""
    caplog.set_level(logging.CRITICAL)
    engine = make_engine()
    engine.step = lambda: 1 / 0
    client = EngineThread(engine)
    stream = client.submit(make_request(5))
    with pytest.raises(EngineError, match="failed"):
        list(stream)
    assert client.is_closed
    client.close()
    with pytest.raises(EngineError, match="failed"):
        client.submit(make_request(5))


def test_thread_sleeps_while_there_is_nothing_to_do(client: EngineThread) -> None:
    """An idle engine takes no steps."""
    list(client.submit(make_request(5)))
    time.sleep(0.05)
    steps = client.stats().num_steps
    time.sleep(0.2)
    assert client.stats().num_steps == steps


def test_thread_stats_are_a_snapshot(client: EngineThread) -> None:
    """What was read before does not change afterwards."""
    before = client.stats()
    list(client.submit(make_request(5)))
    while client.stats().num_finished == 0:
        time.sleep(0.001)
    assert before.num_requests == 0
    assert client.stats().num_generated_tokens == 8
