"""A step that raises ends whoever it raises for, and changes nothing for anybody else."""

import logging

import pytest

from engine.fake import FakeExecutor, Prophet, make_engine, make_request, run_all, run_alone
from quintet.engine import row_sampling
from quintet.engine.request import Request
from quintet.sampling.sampler import SampledToken, sample

NUM_REQUESTS = 16
NUM_TOKENS = 12


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What the engine logs of the injected faults is of no interest."""
    caplog.set_level(logging.CRITICAL)


def requests(**params: object) -> list[Request]:
    """Prompts of 36 to 51 tokens that share their first block and say in the next who they are."""
    return [
        make_request(
            [*range(16), i, 31 - i, *(j * j % 32 for j in range(18 + i))],
            NUM_TOKENS,
            request_id=str(i),
            seed=i,
            **params,
        )
        for i in range(NUM_REQUESTS)
    ]


def ample(**options: object) -> FakeExecutor:
    """An executor that takes all of them in its first step."""
    return FakeExecutor(num_blocks=128, max_num_batched_tokens=1024, **options)


class Poison:
    """Raises for these requests once they have so many tokens."""

    def __init__(self, victims: tuple[int, ...], num_tokens: int) -> None:
        self.victims, self.num_tokens = victims, num_tokens

    def __call__(self, token_ids: list[int]) -> bool:
        return len(token_ids) >= self.num_tokens and token_ids[16] in self.victims


PREFILL, DECODE = 20, 56
"""The first is within everybody's prompt; the second is reached by those with long ones only."""


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
@pytest.mark.parametrize("num_tokens", [PREFILL, DECODE])
@pytest.mark.parametrize("victims", [(9,), (0,), (15,), (8, 9), (10, 15)], ids=str)
@pytest.mark.parametrize("guesses", [False, True])
def test_isolation_ends_only_who_raises_alone(
    victims: tuple[int, ...], num_tokens: int, guesses: bool, error: type[Exception]
) -> None:
    """One or two among sixteen raise, in a chunk of the prompt or later: the others never know."""
    if num_tokens == DECODE:
        victims = tuple(max(9, victim) for victim in victims)  # they get that far
    asked = requests(temperature=0.8, logprobs=2)
    alone = {request.request_id: run_alone(request) for request in asked}
    executor = FakeExecutor(raises_for=Poison(victims, num_tokens), error=error)
    prophet = Prophet({name: output.token_ids for name, output in alone.items()})
    engine = make_engine(executor, drafter=prophet if guesses else None, max_num_batched_tokens=128)
    outputs = run_all(engine, asked)
    for request in asked:
        output, expected = outputs[request.request_id], alone[request.request_id]
        if int(request.request_id) in victims:
            assert error.__name__ in (output.last.error or "")
            # All it could be given, guesses or not: the step to that length raises.
            num_given = max(0, num_tokens - len(request.prompt_token_ids))
            assert output.token_ids == expected.token_ids[:num_given]
        else:
            assert output.last.finish_reason == "length"
            assert [c.logprobs for c in output.chunks] == [c.logprobs for c in expected.chunks]
    stats = engine.stats()
    assert stats.num_failed == len(set(victims))
    assert stats.num_failed_steps >= 1
    assert stats.num_used_blocks == 0
    assert_healthy(engine, executor)


@pytest.mark.parametrize(
    ("num_tokens", "runs_per_sequence"), [(PREFILL, 2), (47, 8)], ids=["together", "one by one"]
)
def test_isolation_ends_everybody_at_a_bounded_cost(
    num_tokens: int, runs_per_sequence: int
) -> None:
    """All raise, in one step or each in its own: all end, and the engine goes on."""
    asked = requests()
    executor = FakeExecutor(raises_for=Poison(tuple(range(16)), num_tokens))
    engine = make_engine(executor)
    outputs = run_all(engine, asked)
    assert {output.last.finish_reason for output in outputs.values()} == {"error"}
    assert len(outputs) == NUM_REQUESTS
    num_more = len(executor.steps) - engine.stats().num_steps
    assert num_more <= runs_per_sequence * NUM_REQUESTS
    assert engine.stats().num_failed_steps <= engine.stats().num_steps
    assert_healthy(engine, executor)


def test_isolation_finds_one_among_sixteen_in_few_runs() -> None:
    """Halving: 1 + 2 log2(16) runs instead of the one."""
    executor = ample(raises_for=Poison((5,), PREFILL))
    engine = make_engine(executor, max_num_batched_tokens=1024)
    for request in requests():
        engine.add(request)
    engine.step()
    assert len(executor.steps) == 9


@pytest.mark.parametrize("k", range(1, 13))
def test_isolation_a_step_that_raises_once_ends_nobody_in_company(k: int) -> None:
    """A fault that does not come again costs time only; but to one alone it is its own."""
    executor = FakeExecutor(num_blocks=16, raise_at={k})
    engine = make_engine(executor, max_num_seqs=2, max_num_batched_tokens=32)
    asked = [make_request(20 + 3 * i, 3 + i) for i in range(5)]
    outputs = run_all(engine, asked)
    failed = [r for r in asked if outputs[r.request_id].last.finish_reason == "error"]
    assert len(failed) == executor.num_lone_raises
    assert engine.stats().num_failed_steps == 1
    for request in asked:
        tokens, expected = outputs[request.request_id].token_ids, run_alone(request).token_ids
        assert tokens == (expected[: len(tokens)] if request in failed else expected)
    assert_healthy(engine, executor)


def test_isolation_leaves_out_guesses_that_raise() -> None:
    """What only a guess brings about costs speed, not the answer, of one alone as well."""
    request = make_request(20, NUM_TOKENS)
    answer = run_alone(request).token_ids
    right = [*request.prompt_token_ids, *answer]
    executor = FakeExecutor(raises_for=lambda token_ids: token_ids != right[: len(token_ids)])
    engine = make_engine(executor, drafter=Prophet({request.request_id: answer}, wrong_every=3))
    output = run_all(engine, [request])[request.request_id]
    assert output.token_ids == answer
    assert engine.stats().num_failed_steps > 0


def test_isolation_scores_each_prompt_token_once() -> None:
    """Log probabilities of prompts are those without a fault, whoever else raises."""
    asked = requests(prompt_logprobs=1)
    engine = make_engine(FakeExecutor(raises_for=Poison((3,), PREFILL)), max_num_batched_tokens=100)
    outputs = run_all(engine, asked)
    for request in asked[:3] + asked[4:]:
        expected = run_alone(request)
        assert outputs[request.request_id].chunks[0].prompt_logprobs is not None
        assert [c.prompt_logprobs for c in outputs[request.request_id].chunks] == [
            c.prompt_logprobs for c in expected.chunks
        ]


def test_isolation_ends_all_answers_of_a_request_once() -> None:
    """The answers of one request end with the first of them that raises."""
    several = make_request([*range(16), 1, 1], NUM_TOKENS, n=4, temperature=1.0, seed=1)
    other = make_request([*range(16), 2, 2], NUM_TOKENS)
    engine = make_engine(FakeExecutor(raises_for=Poison((1,), 22)))
    outputs = run_all(engine, [several, other])
    ends = [c for c in outputs[several.request_id].chunks if c.finish_reason is not None]
    assert [(c.finish_reason, c.is_last) for c in ends] == [("error", True)]
    assert outputs[other.request_id].token_ids == run_alone(other).token_ids


@pytest.mark.parametrize("has_lost_tokens", [False, True])
def test_isolation_of_a_row_that_cannot_be_sampled(
    has_lost_tokens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are sampled apart when sampling raises; who has drawn already cannot draw again."""
    asked = requests(temperature=1.0)
    alone = {request.request_id: run_alone(request).token_ids for request in asked}
    victim = None
    engine = make_engine(ample(), max_num_batched_tokens=1024)

    def failing(
        logits: object, rows: list[object], masks: object, threads: object = None
    ) -> list[SampledToken]:
        nonlocal victim
        sequences = {s.sampler: s.request_id for s in engine._scheduler}
        if len(rows) == NUM_REQUESTS and victim is None:
            victim = sequences[rows[7]]
            if has_lost_tokens:
                rows[7].accept(1)
        if victim is not None and victim in {sequences[row] for row in rows}:
            raise MemoryError("injected")
        return sample(logits, rows, masks, threads)

    monkeypatch.setattr(row_sampling, "sample", failing)
    outputs = run_all(engine, asked)
    assert victim is not None
    for request in asked:
        output, expected = outputs[request.request_id], alone[request.request_id]
        if request.request_id == victim:
            assert output.last.finish_reason == "error"
            assert output.token_ids == expected[: len(output.token_ids)]
        else:
            assert output.token_ids == expected
    assert engine.stats().num_used_blocks == 0


def test_isolation_of_a_row_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native sampler's own report of a row that threw ends that row."""
    asked = requests()

    def failing(
        logits: object, rows: list[object], masks: object, threads: object = None
    ) -> list[SampledToken]:
        tokens = sample(logits, rows, masks, threads)
        if len(rows) == NUM_REQUESTS:
            tokens[3] = SampledToken(-3, error="memory")
        return tokens

    monkeypatch.setattr(row_sampling, "sample", failing)
    engine = make_engine(ample(), max_num_batched_tokens=1024)
    outputs = run_all(engine, asked)
    failed = [o for o in outputs.values() if o.last.finish_reason == "error"]
    assert [output.last.error for output in failed] == ["there was no memory to sample a token"]


def test_isolation_of_a_constraint_that_raises() -> None:
    """A mask that cannot be computed is its own sequence's failure."""

    class Broken:
        must_end = False
        error = ""

        def mask(self) -> None:
            raise MemoryError("injected")

    asked = requests()
    engine = make_engine()
    for i, request in enumerate(asked):
        engine.add(request, Broken() if i == 5 else None)
    outputs = run_all(engine)
    assert "MemoryError" in (outputs["5"].last.error or "")
    for request in asked[:5] + asked[6:]:
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids


def assert_healthy(engine: object, executor: FakeExecutor) -> None:
    """The engine serves on, and finds nothing of what failed."""
    executor.raises_for = None
    again = requests()
    outputs = run_all(engine, again)
    for request in again:
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids
