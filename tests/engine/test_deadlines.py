"""Requests that run out of time, waiting or running."""

import time

import pytest

from engine.fake import FakeExecutor, make_engine, make_request, run_all, run_alone
from quintet.engine.output import Answer
from quintet.engine.request import Request
from quintet.engine.thread import EngineThread
from quintet.errors import CapacityError, RequestError
from quintet.sampling.params import SamplingParams


def test_deadline_ends_a_running_request_with_what_it_has() -> None:
    """It ends with "timeout" and the tokens it got in time; its neighbour goes on."""
    engine = make_engine(FakeExecutor(step_s=0.01))
    late, other = make_request(5, 400, timeout_s=0.1), make_request(6, 30)
    outputs = run_all(engine, [late, other])
    output = outputs[late.request_id]
    assert output.last.finish_reason == "timeout"
    assert 1 <= len(output.token_ids) <= 12
    assert output.last.usage.num_generated_tokens == len(output.token_ids)
    assert output.token_ids == run_alone(make_request(5, 400)).token_ids[: len(output.token_ids)]
    assert outputs[other.request_id].token_ids == run_alone(other).token_ids
    stats = engine.stats()
    assert (stats.num_timed_out, stats.num_finished, stats.num_used_blocks) == (1, 2, 0)


def test_deadline_counts_the_time_in_the_queue() -> None:
    """A request that never got its turn ends all the same, without tokens."""
    engine = make_engine(FakeExecutor(step_s=0.01), max_num_seqs=1)
    first, late = make_request(5, 40), make_request(6, 30, timeout_s=0.05)
    outputs = run_all(engine, [first, late])
    assert outputs[late.request_id].last.finish_reason == "timeout"
    assert outputs[late.request_id].token_ids == ()
    assert outputs[first.request_id].last.finish_reason == "length"


def test_queue_deadline_ends_only_what_has_not_begun() -> None:
    """Whose turn has not come in time ends with an error; who runs is not bound by it."""
    engine = make_engine(FakeExecutor(step_s=0.01), max_num_seqs=1)
    first, late = (make_request(n, 40, queue_timeout_s=0.1) for n in (5, 6))
    outputs = run_all(engine, [first, late])
    last = outputs[late.request_id].last
    assert (last.finish_reason, last.is_overload, last.is_last) == ("error", True, True)
    assert outputs[late.request_id].token_ids == ()
    assert outputs[first.request_id].token_ids == run_alone(make_request(5, 40)).token_ids
    stats = engine.stats()
    assert (stats.num_queue_timeouts, stats.num_failed, stats.num_finished) == (1, 1, 2)
    engine.audit()


def test_queue_deadline_ends_all_answers_of_a_request() -> None:
    """A request for several answers waits for its first; it ends with one chunk."""
    engine = make_engine(FakeExecutor(step_s=0.01), max_num_seqs=1)
    outputs = run_all(engine, [make_request(5, 40), make_request(6, 3, n=3, queue_timeout_s=0.1)])
    assert engine.stats().num_queue_timeouts == 1
    assert engine.stats().num_used_blocks == 0
    assert len(outputs) == 2


def test_queue_deadline_is_an_overload_to_the_reader() -> None:
    """Whoever reads the stream may try again later."""
    client = EngineThread(make_engine(FakeExecutor(step_s=0.01), max_num_seqs=1))
    try:
        first = client.submit(make_request(5, 60))
        late = client.submit(make_request(6, 3, queue_timeout_s=0.1))
        with pytest.raises(CapacityError, match="queued"):
            list(late)
        assert [chunk.finish_reason for chunk in first][-1] == "length"
    finally:
        client.close()


def test_deadline_emits_the_text_held_back() -> None:
    """Text that waited for a stop string is not lost."""
    free = run_alone(make_request(11, 100))
    engine = make_engine(FakeExecutor(step_s=0.02))
    request = make_request(11, 400, stop=[free.text + "!"], timeout_s=0.1)
    output = run_all(engine, [request])[request.request_id]
    assert len(output.text) >= len(output.token_ids) >= 1


def test_deadline_of_a_finished_request_does_not_end_its_successor() -> None:
    """An id used again has its own deadline or none."""
    engine = make_engine()
    run_all(engine, [make_request(5, 3, request_id="a", timeout_s=0.05)])
    again = make_request(5, 3, request_id="a")
    engine.add(again)
    time.sleep(0.06)
    assert run_all(engine)["a"].last.finish_reason == "length"


def test_deadline_passed_before_the_first_step() -> None:
    """When all that is left is late there is no step to run."""
    executor = FakeExecutor()
    engine = make_engine(executor)
    request = make_request(5, 3, timeout_s=0.001)
    engine.add(request)
    time.sleep(0.005)
    (chunk,) = engine.step()
    assert chunk.finish_reason == "timeout"
    assert executor.steps == []
    assert not engine.has_work


def test_deadline_ends_every_answer_of_a_request() -> None:
    """Of several answers, those that are not finished end with "timeout"."""
    engine = make_engine(FakeExecutor(step_s=0.01))
    request = make_request(5, 400, timeout_s=0.15, n=3, temperature=1.0, seed=1)
    answer = Answer(request)
    for chunk in run_all(engine, [request])[request.request_id].chunks:
        answer.add(chunk)
    assert [choice.finish_reason for choice in answer.output().choices] == ["timeout"] * 3
    assert engine.stats().num_timed_out == 1


def test_deadline_is_heard_by_the_reader_of_a_stream() -> None:
    """A timeout is an end like any other, not an error."""
    client = EngineThread(make_engine(FakeExecutor(step_s=0.01)))
    chunks = list(client.submit(make_request(5, 400, timeout_s=0.05)))
    assert chunks[-1].finish_reason == "timeout"
    client.close()


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"overflow": "truncate"}, "overflow"),
        ({"num_keep_tokens": -1}, "num_keep_tokens"),
        ({"priority": 3}, "priority"),
    ],
)
def test_request_options_out_of_range_are_refused(options: dict, parameter: str) -> None:
    """The error names the option."""
    with pytest.raises(RequestError) as caught:
        Request("a", (1,), SamplingParams(), **options)
    assert caught.value.parameter == parameter
