"""Several answers to one prompt."""

import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.fake import FakeExecutor, make_engine, make_request, run_all, run_alone
from quintet.engine.engine import Engine
from quintet.engine.output import Answer, OutputChunk, RequestOutput
from quintet.engine.request import Request


def answers(engine: Engine, requests: list[Request]) -> dict[str, RequestOutput]:
    """Run requests to their end, auditing after every step."""
    outputs = {}
    for (request_id, output), request in zip(
        sorted(run_all(engine, requests).items()),
        sorted(requests, key=lambda r: r.request_id),
        strict=True,
    ):
        answer = Answer(request)
        for chunk in output.chunks:
            answer.add(chunk)
        assert [chunk.is_last for chunk in output.chunks].count(True) == 1
        assert output.chunks[-1].is_last
        outputs[request_id] = answer.output()
    return outputs


def one_by_one(request: Request) -> list[tuple[int, ...]]:
    """The tokens of each answer as a request of its own: the seed plus its index."""
    assert request.params.seed is not None
    found = []
    for index in range(request.params.n):
        params = replace(request.params, n=1, seed=request.params.seed + index)
        found.append(run_alone(replace(request, params=params)).token_ids)
    return found


@pytest.mark.parametrize("length", [1, 16, 40])
@pytest.mark.parametrize("max_num_seqs", [1, 3, 64])
@pytest.mark.parametrize("enable_prefix_cache", [False, True])
def test_group_answers_are_those_of_requests_with_seeds_in_a_row(
    length: int, max_num_seqs: int, enable_prefix_cache: bool
) -> None:
    """Answer i is what a request with the seed plus i gives, and they differ."""
    request = make_request(length, 9, n=5, temperature=1.0, seed=2**64 - 3, logprobs=1)
    engine = make_engine(max_num_seqs=max_num_seqs, enable_prefix_cache=enable_prefix_cache)
    output = answers(engine, [request])[request.request_id]
    assert [choice.index for choice in output.choices] == [0, 1, 2, 3, 4]
    wrapped = replace(request, params=replace(request.params, seed=-3))
    assert [choice.token_ids for choice in output.choices] == one_by_one(wrapped)
    assert len({choice.token_ids for choice in output.choices}) > 1
    assert output.usage.num_prompt_tokens == length
    assert output.usage.num_generated_tokens == 45
    first = output.choices[0]
    assert (output.text, output.token_ids, output.finish_reason) == (
        first.text,
        first.token_ids,
        "length",
    )
    assert all(c.logprobs and len(c.logprobs) == 9 for c in output.choices)


def test_group_shares_the_prompts_full_blocks() -> None:
    """Full blocks of the prompt are computed and stored once, whatever n is."""
    executor = FakeExecutor()
    engine = make_engine(executor)
    engine.add(make_request(40, 3, n=4, temperature=1.0, seed=1))
    engine.step()
    engine.step()
    assert engine.stats().num_running == 4
    assert engine.stats().num_used_blocks == 2 + 4
    while engine.has_work:
        engine.step()
        engine.audit()
    num_computed = sum(len(step.token_ids) for step in executor.steps)
    assert num_computed == 40 + 3 * 8 + 4 * 2  # the prompt, three last blocks, all but last tokens


def test_group_waits_for_room_like_anybody() -> None:
    """Answers that do not fit at once are preempted and resumed, and come out the same."""
    requests = [
        make_request(20 + i, 30, n=4, temperature=1.0, seed=10 * i, prompt_logprobs=0)
        for i in range(3)
    ]
    engine = make_engine(FakeExecutor(num_blocks=12), max_num_seqs=6)
    outputs = answers(engine, requests)
    assert engine.stats().num_preemptions > 0
    assert engine.stats().num_requests == engine.stats().num_finished == 3
    for request in requests:
        output = outputs[request.request_id]
        assert [choice.token_ids for choice in output.choices] == one_by_one(request)
        assert output.prompt_logprobs is not None


@pytest.mark.parametrize("k", range(9))
def test_group_is_aborted_as_a_whole(k: int) -> None:
    """An abort at any step ends every answer, and nobody else's."""
    engine = make_engine(FakeExecutor(num_blocks=16), max_num_seqs=3, max_num_batched_tokens=16)
    victim = make_request(40, 20, n=4, temperature=1.0, seed=5)
    other = make_request(20, 20)
    engine.add(victim)
    engine.add(other)
    chunks: list[OutputChunk] = []
    for _ in range(k):
        chunks += engine.step()
    last = engine.abort(victim.request_id)
    assert last is not None
    assert last.is_last
    assert last.finish_reason == "abort"
    engine.audit()
    assert engine.abort(victim.request_id) is None
    while engine.has_work:
        chunks += engine.step()
        engine.audit()
    assert engine.stats().num_used_blocks == 0
    tokens = tuple(t for c in chunks if c.request_id == other.request_id for t in c.token_ids)
    assert tokens == run_alone(other).token_ids
    answer = Answer(victim)
    for chunk in [*(c for c in chunks if c.request_id == victim.request_id), last]:
        answer.add(chunk)
    assert {choice.finish_reason for choice in answer.output().choices} == {"abort"}


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("kind", ["raise", "nan"])
def test_group_fails_as_a_whole(k: int, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """One answer's failure is its request's: the last chunk says so, the rest is dropped."""
    caplog.set_level(logging.CRITICAL)
    executor = FakeExecutor(raise_at=range(k, 99) if kind == "raise" else (), nan_at={k})
    engine = make_engine(executor)
    request = make_request(20, 9, n=3, temperature=1.0, seed=5)
    output = run_all(engine, [request])[request.request_id]
    assert output.last.finish_reason == "error"
    assert output.last.is_last
    assert [chunk.finish_reason for chunk in output.chunks].count("error") == 1
    assert engine.stats().num_failed == engine.stats().num_finished == 1
    assert engine.stats().num_used_blocks == 0
    executor.raise_at = ()
    again = make_request(20, 9, n=3, temperature=1.0, seed=5)
    found = answers(engine, [again])[again.request_id]
    assert [choice.token_ids for choice in found.choices] == one_by_one(again)


def test_group_answers_end_apart() -> None:
    """Answers stop when they stop: each has its own reason, and only the last ends the request."""
    request = make_request(20, 40, n=6, temperature=1.5, seed=3, stop_token_ids=[1, 2, 3])
    output = answers(make_engine(), [request])[request.request_id]
    assert len({len(choice.token_ids) for choice in output.choices}) > 1
    for choice in output.choices:
        assert choice.finish_reason == ("length" if len(choice.token_ids) == 40 else "stop")
        if choice.finish_reason == "stop":
            assert choice.stop_reason == choice.token_ids[-1]


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(
            st.integers(1, 60), st.integers(1, 25), st.integers(1, 4), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=5,
    ),
    aborts=st.dictionaries(st.integers(0, 40), st.integers(0, 4), max_size=3),
    max_num_seqs=st.integers(1, 6),
)
def test_group_in_any_company(
    shapes: list[tuple[int, int, int, bool, bool]], aborts: dict[int, int], max_num_seqs: int
) -> None:
    """Groups, scored prompts, aborts and short memory together: the books balance throughout."""
    executor = FakeExecutor(num_blocks=12, max_logits_rows=max_num_seqs + 2)
    engine = make_engine(executor, max_num_seqs=max_num_seqs, max_num_batched_tokens=24)
    requests = [
        make_request(
            length,
            max_tokens,
            n=n,
            seed=place,
            temperature=1.0 if hot else 0.0,
            prompt_logprobs=1 if scored else None,
        )
        for place, (length, max_tokens, n, hot, scored) in enumerate(shapes)
    ]
    for request in requests:
        engine.add(request)
    chunks: list[OutputChunk] = []
    for step in range(2000):
        if step in aborts:
            chunk = engine.abort(requests[aborts[step] % len(requests)].request_id)
            chunks += [] if chunk is None else [chunk]
        if not engine.has_work:
            break
        chunks += engine.step()
        engine.audit()
    assert not engine.has_work
    assert engine.stats().num_used_blocks == 0
    for request in requests:
        answer = Answer(request)
        for chunk in chunks:
            if chunk.request_id == request.request_id:
                answer.add(chunk)
        for choice, wanted in zip(answer.output().choices, one_by_one(request), strict=True):
            assert choice.finish_reason in ("length", "abort")
            assert choice.token_ids == wanted[: len(choice.token_ids)]
            assert choice.finish_reason == "abort" or choice.token_ids == wanted
