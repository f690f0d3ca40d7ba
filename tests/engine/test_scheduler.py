"""Order of service, and a model test of scheduler, block pool and engine together."""

import os

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from engine.fake import Collected, FakeExecutor, Prophet, make_engine, make_request, run_alone
from quintet.engine.request import Overflow, Priority, Request
from quintet.engine.scheduler import MAX_PREEMPTIONS

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH


def order_of_ends(*requests: Request, **options: int) -> list[str]:
    """Ids in the order in which an engine for one sequence at a time finishes them."""
    engine = make_engine(max_num_seqs=1, **options)
    for request in requests:
        engine.add(request)
    ends = []
    while engine.has_work:
        ends += [chunk.request_id for chunk in engine.step() if chunk.finish_reason]
    return ends


def test_scheduler_serves_by_priority_then_arrival() -> None:
    """Higher priorities first, equals in the order of arrival."""
    requests = [
        make_request(4, 2, request_id=name, priority=priority)
        for name, priority in [("l", LOW), ("n1", NORMAL), ("h", HIGH), ("n2", NORMAL)]
    ]
    assert order_of_ends(*requests) == ["h", "n1", "n2", "l"]


def test_scheduler_ages_so_that_none_starves() -> None:
    """A low priority gets its turn though higher ones keep coming; ageing says when."""
    waits = []
    for ageing_steps in (10, 30):
        engine = make_engine(max_num_seqs=1, ageing_steps=ageing_steps)
        engine.add(make_request(4, 4, request_id="low", priority=LOW))
        engine.add(make_request(4, 4, priority=HIGH))
        num_steps = 0
        while not any(chunk.request_id == "low" for chunk in engine.step()):
            num_steps += 1
            if num_steps % 4 == 0:
                engine.add(make_request(4, 4, priority=HIGH))
            assert num_steps < 200
        waits.append(num_steps)
    assert 20 <= waits[0] <= 30
    assert 60 <= waits[1] <= 70


def test_scheduler_preempts_the_youngest_of_the_lowest_priority() -> None:
    """When blocks run out the last in the order of service gives up its own."""
    engine = make_engine(FakeExecutor(num_blocks=6))
    requests = [
        make_request(15, 40, request_id=name, priority=priority)
        for name, priority in [("n1", NORMAL), ("l1", LOW), ("n2", NORMAL)]
    ]
    for request in requests:
        engine.add(request)
    engine.step()
    assert {s.request_id for s in engine._scheduler._running} == {"n1", "l1", "n2"}
    while engine.stats().num_preemptions == 0:
        engine.step()
    assert [s.request_id for s in engine._scheduler._waiting] == ["l1"]


def test_scheduler_never_preempts_the_first_in_rank() -> None:
    """However short of blocks, the first gets a token in every step while nobody is protected."""
    engine = make_engine(FakeExecutor(num_blocks=8))
    first = make_request(10, 100)
    engine.add(first)
    for i in range(10):
        engine.add(make_request(20 + i, 60))
    for _ in range(100):
        assert first.request_id in {chunk.request_id for chunk in engine.step()}
        engine.audit()


def preemptions_of_a_crowded_request() -> int:
    """How often a LOW request is preempted where HIGH ones come whenever it runs alone."""
    engine = make_engine(FakeExecutor(num_blocks=16), max_num_seqs=8)
    request = make_request(30, 200, priority=LOW)
    engine.add(request)
    (sequence,) = engine._scheduler
    while sequence in engine._scheduler:
        if engine._scheduler._running == [sequence]:
            for _ in range(5):
                engine.add(make_request(15, 20, priority=HIGH))
        engine.step()
        engine.audit()
    assert tuple(sequence.token_ids[30:]) == run_alone(request).token_ids
    return sequence.num_preemptions


def test_scheduler_preempts_nobody_a_fifth_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once preempted four times a sequence runs to its end, whoever comes."""
    assert preemptions_of_a_crowded_request() == MAX_PREEMPTIONS == 4
    monkeypatch.setattr("quintet.engine.scheduler.MAX_PREEMPTIONS", 10**9)
    assert preemptions_of_a_crowded_request() > 4  # so the bound was what held it


def test_scheduler_runs_a_protected_sequence_before_all_others() -> None:
    """Higher ranks give way to it when blocks run out; their answers stay what they are."""
    engine = make_engine(FakeExecutor(num_blocks=8))
    requests = [make_request(15, 60, priority=HIGH), make_request(15, 60, priority=LOW)]
    for request in requests:
        engine.add(request)
    (protected,) = [s for s in engine._scheduler if s.request is requests[1]]
    protected.num_preemptions = MAX_PREEMPTIONS
    outputs: dict[str, list[int]] = {request.request_id: [] for request in requests}
    while engine.has_work:
        chunks = engine.step()
        engine.audit()
        if protected in engine._scheduler:
            assert protected.request_id in {chunk.request_id for chunk in chunks}
        for chunk in chunks:
            outputs[chunk.request_id] += chunk.token_ids
    assert engine.stats().num_preemptions > 0
    for request in requests:
        assert tuple(outputs[request.request_id]) == run_alone(request).token_ids


def test_scheduler_runs_one_protected_sequence_at_a_time() -> None:
    """Of two the first in rank runs; the other waits for it, and lets others pass meanwhile."""
    engine = make_engine(FakeExecutor(num_blocks=32))
    first, second, other = (make_request(15, 10) for _ in range(3))
    for request in (first, second, other):
        engine.add(request)
    for sequence in engine._scheduler:
        if sequence.request is not other:
            sequence.num_preemptions = MAX_PREEMPTIONS
    ends = []
    while engine.has_work:
        running = {s.request_id for s in engine._scheduler._running}
        assert not {first.request_id, second.request_id} <= running
        ends += [chunk.request_id for chunk in engine.step() if chunk.finish_reason]
        engine.audit()
    assert ends == [first.request_id, other.request_id, second.request_id]


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(
            st.integers(1, 60), st.integers(1, 67), st.sampled_from(Priority), st.integers(0, 60)
        ),
        min_size=2,
        max_size=14,
    ),
    ageing_steps=st.sampled_from([1, 40, 1000]),
)
def test_scheduler_bounds_preemptions_and_ends_all(
    shapes: list[tuple[int, int, Priority, int]], ageing_steps: int
) -> None:
    """Whatever comes when, in memory for one or two: at most four preemptions, and all end."""
    engine = make_engine(FakeExecutor(num_blocks=8), ageing_steps=ageing_steps)
    coming = sorted(shapes, key=lambda shape: -shape[3])
    num_steps, num_left = 0, len(coming)
    # Each answer's tokens, each computed again after each preemption, and the time to come.
    bound = 60 + sum(max_tokens * (MAX_PREEMPTIONS + 2) for _, max_tokens, _, _ in shapes)
    while num_left:
        while coming and coming[-1][3] <= num_steps:
            length, max_tokens, priority, _ = coming.pop()
            engine.add(make_request(length, max_tokens, priority=priority))
        num_left -= sum(chunk.is_last for chunk in engine.step())
        engine.audit()
        assert all(s.num_preemptions <= MAX_PREEMPTIONS for s in engine._scheduler)
        num_steps += 1
        assert num_steps <= bound


def test_scheduler_does_not_let_small_requests_pass_a_large_one() -> None:
    """A request that needs many blocks waits for them at the head of the queue."""
    engine = make_engine(FakeExecutor(num_blocks=8))
    running, large, small = make_request(60, 20), make_request(100, 2), make_request(3, 2)
    for request in (running, large, small):
        engine.add(request)
    ends = []
    while engine.has_work:
        ends += [chunk.request_id for chunk in engine.step() if chunk.finish_reason]
    assert ends.index(large.request_id) <= ends.index(small.request_id)


def test_scheduler_admits_nobody_who_would_soon_be_preempted() -> None:
    """A newcomer leaves each running sequence a block to grow into."""
    engine = make_engine(FakeExecutor(num_blocks=8))
    engine.add(make_request(15, 20))
    engine.add(make_request(15, 20))
    engine.step()
    engine.add(make_request(70, 2))  # 5 of the 6 blocks left, and the other two grow soon
    for _ in range(15):
        engine.step()
    assert engine.stats().num_waiting == 1
    while engine.has_work:
        engine.step()
    assert engine.stats().num_preemptions == 0


def test_scheduler_finish_is_idempotent() -> None:
    """Finishing twice, waiting or running, frees once."""
    engine = make_engine(max_num_seqs=1)
    for _ in range(2):
        engine.add(make_request(20))
    engine.step()
    scheduler = engine._scheduler
    for sequence in tuple(scheduler):
        scheduler.finish(sequence)
        scheduler.finish(sequence)
    assert list(scheduler) == []
    scheduler.pool.audit([])


def test_scheduler_audit_notices_a_block_freed_one_step_early() -> None:
    """The audit is able to fail: blocks released under a running sequence are reported."""
    engine = make_engine()
    engine.add(make_request(20))
    engine.step()
    (sequence,) = engine._scheduler
    engine._scheduler.pool.release(sequence.block_table)
    with pytest.raises(AssertionError, match="0 owners, 1 tables"):
        engine.audit()


CONTEXT = 128


class EngineModel(RuleBasedStateMachine):
    """Any order of adding, aborting, guessing, stepping and failing; 16 blocks, all audited.

    Every request must come out exactly as it does alone, or as far as it came.
    """

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.executor = FakeExecutor(num_blocks=16, raise_at=set(), nan_at=set())
        self.prophet = Prophet({})
        self.engine = make_engine(
            self.executor,
            drafter=self.prophet,
            max_num_seqs=5,
            max_num_batched_tokens=48,
            ageing_steps=40,
            max_num_draft_tokens=12,
            max_model_len=CONTEXT,
        )
        self.expected: dict[str, Collected] = {}
        self.outputs: dict[str, Collected] = {}
        self.poisoned_lengths: set[int] = set()
        self.executor.raises_for = lambda token_ids: len(token_ids) in self.poisoned_lengths

    @rule(
        target=requests,
        length=st.integers(1, 120),
        start=st.integers(0, 2),
        max_tokens=st.integers(1, 130),
        priority=st.sampled_from(Priority),
        temperature=st.sampled_from([0.0, 1.0]),
        overflow=st.sampled_from(["error", "error", "slide"]),
        num_keep_tokens=st.integers(0, CONTEXT // 2),
    )
    def add(
        self,
        length: int,
        start: int,
        max_tokens: int,
        priority: Priority,
        temperature: float,
        overflow: Overflow,
        num_keep_tokens: int,
    ) -> Request:
        prompt = [(start + i * i) % 32 for i in range(length)]  # long common prefixes
        request = make_request(
            prompt,
            max_tokens,
            priority=priority,
            temperature=temperature,
            seed=length,
            overflow=overflow,
            num_keep_tokens=num_keep_tokens,
        )
        self.engine.add(request)
        self.expected[request.request_id] = run_alone(request, max_model_len=CONTEXT)
        self.prophet.answers[request.request_id] = self.expected[request.request_id].token_ids
        self.outputs[request.request_id] = Collected()
        return request

    @rule(wrong_every=st.sampled_from([1, 3, 7, 1000]), k=st.integers(1, 12))
    def guess_otherwise(self, wrong_every: int, k: int) -> None:
        self.prophet.wrong_every, self.prophet.max_draft_tokens = wrong_every, k

    @rule(count=st.integers(1, 30))
    def step(self, count: int) -> None:
        for _ in range(count):
            if self.engine.has_work:
                self._step()

    @rule(request=requests)
    def abort(self, request: Request) -> None:
        chunk = self.engine.abort(request.request_id)
        if chunk is not None:
            self.outputs[request.request_id].chunks.append(chunk)

    @rule()
    def fail_the_next_step(self) -> None:
        self.executor.raise_at.add(len(self.executor.steps) + 1)

    @rule(length=st.integers(1, CONTEXT))
    def poison_a_length(self, length: int) -> None:
        self.poisoned_lengths.add(length)

    @rule()
    def heal(self) -> None:
        self.poisoned_lengths.clear()

    @rule()
    def spoil_the_next_step(self) -> None:
        self.executor.nan_at.add(len(self.executor.steps) + 1)

    @invariant()
    def books_balance(self) -> None:
        self.engine.audit()
        stats = self.engine.stats()
        num_unfinished = stats.num_waiting + stats.num_running
        assert all(s.num_preemptions <= MAX_PREEMPTIONS for s in self.engine._scheduler)
        assert stats.num_requests == stats.num_finished + num_unfinished
        assert num_unfinished or stats.num_used_blocks == 0
        # A step that raises ends who raises alone, a row of NaN whose it is.
        assert stats.num_failed <= self.executor.num_lone_raises + len(self.executor.nan_at)

    def teardown(self) -> None:
        num_left = sum(130 + 120 for output in self.outputs.values())
        while self.engine.has_work:
            assert (num_left := num_left - 1) >= 0, "the engine does not come to an end"
            self._step()
        for request_id, output in self.outputs.items():
            expected = self.expected[request_id].token_ids
            if output.last.finish_reason == "length":
                assert output.token_ids == expected
            else:
                assert output.last.finish_reason in ("abort", "error")
                assert output.token_ids == expected[: len(output.token_ids)]

    def _step(self) -> None:
        for chunk in self.engine.step():
            self.outputs[chunk.request_id].chunks.append(chunk)
        self.engine.audit()


TestEngineModel = EngineModel.TestCase
TestEngineModel.settings = settings(
    # 400 runs or more take minutes; set this to have them.
    max_examples=int(os.environ.get("QUINTET_STATE_MACHINE_RUNS", "60")),
    stateful_step_count=50,
    deadline=None,
)
