"""What the engine says of itself."""

import logging
import time

import pytest

from engine.fake import FakeExecutor, Prophet, make_engine, make_request, run_all, run_alone
from quintet.engine import engine as engine_module
from quintet.engine.stats import EngineStats
from quintet.engine.thread import EngineThread
from quintet.errors import EngineError


def test_stats_time_each_request_and_each_token() -> None:
    """One time in the queue, to the first token and to the end per request; one per later token."""
    engine = make_engine(FakeExecutor(step_s=0.01), max_num_seqs=1)
    before = engine.stats()
    run_all(engine, [make_request(10, 4), make_request(20, 6)])
    stats = engine.stats()
    assert stats.queue_time.count == stats.prefill_time.count == 2
    parts_s = stats.queue_time.sum_s + stats.prefill_time.sum_s
    assert parts_s == pytest.approx(stats.time_to_first_token.sum_s)
    assert stats.time_to_first_token.count == 2
    assert stats.latency.count == 2
    assert stats.inter_token_latency.count == 3 + 5
    assert stats.inter_token_latency.mean_s >= 0.01
    # The second waits for the first one's four steps.
    assert stats.queue_time.percentile_s(100) >= 0.02
    assert stats.latency.sum_s >= stats.time_to_first_token.sum_s >= 0.06
    assert before.latency.count == 0


def test_stats_count_tokens_of_one_step_as_simultaneous() -> None:
    """With guesses the mean time between tokens is still the time over the tokens."""
    request = make_request(10, 70)
    drafter = Prophet({request.request_id: run_alone(request).token_ids}, wrong_every=1000)
    engine = make_engine(FakeExecutor(step_s=0.01), drafter=drafter)
    run_all(engine, [request])
    stats = engine.stats()
    assert stats.inter_token_latency.count == 69
    assert stats.inter_token_latency.percentile_s(99) >= 0.01
    assert stats.inter_token_latency.percentile_s(50) <= 0.0002
    assert stats.acceptance_rate == 1.0


def test_stats_count_a_request_of_several_answers_once() -> None:
    """Answers beyond the first add tokens, not requests."""
    engine = make_engine()
    run_all(engine, [make_request(10, 4, n=3, temperature=1.0, seed=1)])
    stats = engine.stats()
    assert (stats.queue_time.count, stats.time_to_first_token.count, stats.latency.count) == (
        1,
        1,
        1,
    )
    assert stats.num_generated_tokens == 12


def test_stats_give_rates_that_fade() -> None:
    """Tokens and requests per second are there after work, and less later."""
    engine = make_engine()
    run_all(engine, [make_request(10, 50)])
    stats = engine.stats()
    first = stats.tokens_per_second
    assert 4.0 < first <= 5.0  # 50 tokens, over ten seconds
    assert 0.08 < stats.requests_per_second <= 0.1
    time.sleep(0.05)
    assert stats.tokens_per_second < first


def test_stats_know_memory_and_age() -> None:
    """The process has memory, the engine an age."""
    stats = make_engine().stats()
    assert stats.resident_bytes > 10_000_000
    assert 0 <= stats.uptime_s < 60


def test_stats_since_an_earlier_reading() -> None:
    """Totals are differences then, the state is as it is; faces clear their statistics so."""
    engine = make_engine()
    run_all(engine, [make_request(10, 4)])
    earlier = engine.stats()
    run_all(engine, [make_request(20, 6)])
    since = engine.stats().since(earlier)
    assert (since.num_requests, since.num_generated_tokens, since.latency.count) == (1, 6, 1)
    assert since.num_blocks == 64


def test_stats_survive_the_loss_of_an_engine() -> None:
    """Totals and times of a lost engine go on in the one that replaces it."""
    engine = make_engine()
    run_all(engine, [make_request(10, 4)])
    lost = engine.stats().lost(0)
    both = engine.stats().after(lost)
    assert (both.num_requests, both.latency.count) == (2, 2)
    assert both.tokens_per_second <= 0.4
    assert EngineStats().after(lost).time_to_first_token.count == 1


def test_audit_is_counted_and_its_fault_told(caplog: pytest.LogCaptureFixture) -> None:
    """In production an audit raises nothing inside the engine: it says what is wrong."""
    caplog.set_level(logging.CRITICAL)
    engine = make_engine()
    assert engine.find_fault() is None
    engine._scheduler.pool.allocate(1)
    assert "1 owners, 0 tables" in (engine.find_fault() or "")
    stats = engine.stats()
    assert (stats.num_audits, stats.num_failed_audits) == (2, 1)


def test_engine_audits_itself_when_nothing_is_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most once a minute; here without waiting."""
    engine = make_engine()
    run_all(engine, [make_request(5)])
    assert engine.stats().num_audits == 0
    monkeypatch.setattr(engine_module, "_AUDIT_EVERY_S", -1.0)
    run_all(engine, [make_request(5), make_request(6, 3)])
    assert engine.stats().num_audits == 1
    assert engine.stats().num_failed_audits == 0


def test_thread_audits_between_steps(caplog: pytest.LogCaptureFixture) -> None:
    """Clients may ask for an audit at any time, while requests run, and hear of a fault."""
    caplog.set_level(logging.CRITICAL)
    engine = make_engine(FakeExecutor(step_s=0.005))
    client = EngineThread(engine)
    stream = client.submit(make_request(5, 400))
    for _ in range(3):
        client.audit()
    stream.abort()
    list(stream)
    assert client.stats().num_audits >= 3
    engine._scheduler.pool._num_owners[0] += 1
    with pytest.raises(EngineError, match="block 0: 1 owners, 0 tables"):
        client.audit()
    engine._scheduler.pool._num_owners[0] -= 1
    client.close()
    with pytest.raises(EngineError, match="closed"):
        client.audit()
