"""Guesses, right or wrong, change no answer: the engine with them against the engine without."""

import logging

import pytest

from engine.fake import (
    EOS,
    Collected,
    FakeExecutor,
    Prophet,
    make_engine,
    make_request,
    run_all,
    run_alone,
    spell,
)
from quintet.config import NgramSpeculation
from quintet.engine.request import Request

NGRAM = NgramSpeculation(min_ngram=1)


def requests(**params: object) -> list[Request]:
    """Prompts of 1 to 76 tokens, the second half starting like the first."""
    return [make_request(1 + 5 * i, 14 + 3 * i, seed=i, **params) for i in range(16)]


def prophet(asked: list[Request], **options: int) -> Prophet:
    """It knows what each of them answers."""
    return Prophet({r.request_id: run_alone(r).token_ids for r in asked}, **options)


def content(output: Collected) -> list[tuple]:
    """All that a client sees, times apart."""
    return [
        (c.text, c.token_ids, c.logprobs, c.finish_reason, c.stop_reason) for c in output.chunks
    ]


@pytest.mark.parametrize("wrong_every", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.9},
        {"temperature": 0.9, "logprobs": 2, "repetition_penalty": 1.3},
        {"temperature": 0.0, "frequency_penalty": 0.7, "min_tokens": 9, "ignore_eos": False},
        {"temperature": 1.1, "stop": [spell(3), spell(9) + spell(4)], "min_tokens": 3},
        {"temperature": 1.1, "stop_token_ids": [5], "top_p": 0.8},
    ],
    ids=str,
)
def test_speculation_changes_no_answer(params: dict, wrong_every: int) -> None:
    """Tokens, texts, log probabilities and ends are those of an engine that does not guess."""
    asked = requests(**params)
    engine = make_engine(
        drafter=prophet(asked, wrong_every=wrong_every),
        ngram_speculation=NGRAM,
        max_num_draft_tokens=20,
    )
    outputs = run_all(engine, asked)
    for request in asked:
        assert content(outputs[request.request_id]) == content(run_alone(request))
    stats = engine.stats()
    assert stats.num_used_blocks == 0
    assert stats.num_draft_tokens > 0
    assert (stats.num_accepted_tokens > 0) == (wrong_every > 1)
    assert not engine._speculator._trials


@pytest.mark.parametrize("num_blocks", [8, 9, 11])
def test_speculation_changes_no_answer_where_blocks_are_scarce(num_blocks: int) -> None:
    """Preemption and guesses together; nobody is preempted for a guess alone."""
    asked = [make_request(1 + 5 * i, 12 + i, seed=i, temperature=0.8) for i in range(16)]
    engine = make_engine(FakeExecutor(num_blocks=num_blocks), drafter=prophet(asked, wrong_every=4))
    outputs = run_all(engine, asked)
    for request in asked:
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids
    assert engine.stats().num_preemptions > 0
    assert engine.stats().num_accepted_tokens > 0


def test_speculation_takes_fewer_steps() -> None:
    """Six right guesses a step: seven tokens a step."""
    request = make_request(10, 70)
    executor = FakeExecutor()
    engine = make_engine(executor, drafter=prophet([request], wrong_every=1000))
    run_all(engine, [request])
    assert len(executor.steps) == 10
    assert engine.stats().num_accepted_tokens == 60


def test_speculation_by_lookup_guesses_a_repeated_text() -> None:
    """An answer in a loop is guessed once the loop has been seen."""

    class Loop(FakeExecutor):
        def _logits(self, step, row):
            logits = super()._logits(step, row) / 100
            logits[(step.positions[row] * 5) % 9] += 50
            return logits

    request = make_request(4, 200)
    slow, fast = Loop(), Loop()
    expected = run_all(make_engine(slow), [request])[request.request_id]
    outputs = run_all(make_engine(fast, ngram_speculation=NgramSpeculation()), [request])
    assert content(outputs[request.request_id]) == content(expected)
    assert len(fast.steps) < len(slow.steps) / 5


def test_speculation_stops_where_guesses_are_wrong() -> None:
    """After some failures rows are no longer spent, though guesses are still compared."""
    request = make_request(10, 400)
    executor = FakeExecutor()
    engine = make_engine(executor, drafter=prophet([request], wrong_every=1))
    engine._speculator._cost.bound = lambda *_: 0.15
    run_all(engine, [request])
    assert 0 < engine.stats().num_draft_tokens < 30
    assert all(len(step.token_ids) == 1 for step in executor.steps[-300:])


def test_speculation_stays_within_the_budget_of_a_step() -> None:
    """Guesses fill what is left of max_num_batched_tokens, up to max_num_draft_tokens."""
    asked = [make_request(10, 40) for _ in range(8)]
    for budget, num_drafts in ((12, 4), (64, 20)):
        executor = FakeExecutor(max_num_batched_tokens=budget)
        engine = make_engine(
            executor,
            drafter=prophet(asked, wrong_every=1000),
            max_num_batched_tokens=budget,
            max_num_seqs=8,
            max_num_draft_tokens=20,
        )
        run_all(engine, asked)
        # The executor checks the budget; here, that it is used.
        assert max(len(step.logits_rows) for step in executor.steps) == 8 + num_drafts


def test_speculation_publishes_no_block_with_a_wrong_guess() -> None:
    """A prefix found after wrong guesses holds the true tokens: the next answer is right."""
    first = make_request(10, 60)
    answer = run_alone(first).token_ids
    engine = make_engine(drafter=prophet([first], wrong_every=3))
    run_all(engine, [first])
    pool = engine._scheduler.pool
    text = [*first.prompt_token_ids, *answer]
    blocks = {tuple(text[i : i + 16]) for i in range(0, 64, 16)}
    assert {prefix.token_ids for prefix in pool._prefixes.values()} == blocks
    follow_up = make_request([*text, 1, 2], 10)
    engine._speculator._drafter.answers = {follow_up.request_id: []}
    output = run_all(engine, [follow_up])[follow_up.request_id]
    assert output.last.usage.num_cached_tokens == 64
    assert output.token_ids == run_alone(follow_up).token_ids


@pytest.mark.parametrize("num_steps", range(24))
def test_speculation_abort_at_every_point_leaves_others_alone(num_steps: int) -> None:
    """An abort between any two steps frees the victim's blocks; others answer as ever."""
    asked = [make_request(30, 24), make_request(40, 24), make_request(20, 24)]
    drafts = prophet(asked, wrong_every=4)
    for victim in asked:
        engine = make_engine(
            FakeExecutor(num_blocks=10), drafter=drafts, max_num_seqs=2, max_num_batched_tokens=16
        )
        for request in asked:
            engine.add(request)
        outputs = {request.request_id: Collected() for request in asked}
        for _ in range(num_steps):
            for chunk in engine.step():
                outputs[chunk.request_id].chunks.append(chunk)
            engine.audit()
        engine.abort(victim.request_id)
        engine.audit()
        for request_id, output in run_all(engine).items():
            outputs[request_id].chunks += output.chunks
        for request in asked:
            if request is not victim:
                assert content(outputs[request.request_id]) == content(run_alone(request))
        assert engine.stats().num_used_blocks == 0
        assert not drafts.known


@pytest.mark.parametrize("k", range(1, 13))
@pytest.mark.parametrize("fault", ["raise_at", "nan_at"])
def test_speculation_a_fault_stays_with_its_request(
    k: int, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A NaN row among checked guesses fails only whose it is, a step that raises once nobody."""
    caplog.set_level(logging.CRITICAL)
    asked = [make_request(20 + 3 * i, 20 + i) for i in range(5)]
    executor = FakeExecutor(num_blocks=16, **{fault: {k}})
    engine = make_engine(
        executor, drafter=prophet(asked, wrong_every=4), max_num_seqs=2, max_num_batched_tokens=32
    )
    outputs = run_all(engine, asked)
    failed = [r for r in asked if outputs[r.request_id].last.finish_reason == "error"]
    assert len(failed) <= (executor.num_lone_raises if fault == "raise_at" else 1)
    if fault == "raise_at":
        assert engine.stats().num_failed_steps == 1
    for request in asked:
        tokens, expected = outputs[request.request_id].token_ids, run_alone(request).token_ids
        assert tokens == (expected[: len(tokens)] if request in failed else expected)
    assert engine.stats().num_used_blocks == 0


@pytest.mark.parametrize("after", [0, 5])
def test_speculation_a_broken_drafter_costs_speed_only(
    after: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Guessing is switched off when it fails; every answer comes out right."""
    caplog.set_level(logging.CRITICAL)
    asked = requests()
    drafts = prophet(asked)
    good, calls = drafts.propose, []

    def propose(wanted):
        calls.append(1)
        if len(calls) > after:
            raise MemoryError("no room")
        return good(wanted)

    drafts.propose = propose
    outputs = run_all(make_engine(drafter=drafts), asked)
    assert len(calls) == after + 1
    for request in asked:
        assert content(outputs[request.request_id]) == content(run_alone(request))


def test_speculation_ends_an_answer_inside_a_run_of_right_guesses() -> None:
    """What was guessed beyond the end of an answer is not part of it."""
    free = make_request([5, 6], 400, temperature=1.0, seed=3)
    stopping = make_request([5, 6], 400, temperature=1.0, seed=3, ignore_eos=False)
    drafts = Prophet({stopping.request_id: run_alone(free).token_ids}, wrong_every=1000)
    engine = make_engine(drafter=drafts)
    output = run_all(engine, [stopping])[stopping.request_id]
    assert output.token_ids[-1] == EOS
    assert content(output) == content(run_alone(stopping))
    assert engine.stats().num_generated_tokens == len(output.token_ids)
