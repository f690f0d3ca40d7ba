"""The engine over a model whose answers depend on every cached token."""

import logging

import pytest

from engine.fake import (
    EOS,
    VOCAB_SIZE,
    FakeExecutor,
    make_engine,
    make_request,
    run_all,
    run_alone,
    spell,
)
from quintet.backends.base import BLOCK_SIZE
from quintet.engine.engine import Engine
from quintet.engine.request import Request
from quintet.errors import ContextLengthError, RequestError
from quintet.sampling.params import SamplingParams


def sixteen(**params: object) -> list[Request]:
    """Prompts of 1 to 76 tokens, the second half starting like the first."""
    return [make_request(1 + 5 * i, 12 + i, seed=i, **params) for i in range(16)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_num_seqs": 3},
        {"max_num_batched_tokens": 64, "max_num_seqs": 7},
        {"max_num_mixed_prefill_tokens": 1},
        {"max_num_mixed_prefill_tokens": 17, "max_num_batched_tokens": 100},
        {"enable_prefix_cache": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_engine_answers_sixteen_together_as_alone(
    options: dict[str, int], temperature: float
) -> None:
    """Batching, chunking and sharing prefixes change no token and no log probability."""
    requests = sixteen(temperature=temperature, logprobs=2)
    engine = make_engine(**options)
    together = run_all(engine, requests)
    for request in requests:
        alone = run_alone(request)
        assert together[request.request_id].token_ids == alone.token_ids
        assert [c.logprobs for c in together[request.request_id].chunks] == [
            c.logprobs for c in alone.chunks
        ]
        assert together[request.request_id].last.finish_reason == "length"


@pytest.mark.parametrize("num_blocks", [8, 11, 16])
@pytest.mark.parametrize("enable_prefix_cache", [False, True])
def test_engine_preempted_sequences_resume_without_repeating_tokens(
    num_blocks: int, enable_prefix_cache: bool
) -> None:
    """Where blocks run out, answers are those of an ample engine, each token once."""
    requests = sixteen(temperature=0.8)
    engine = make_engine(
        FakeExecutor(num_blocks=num_blocks), enable_prefix_cache=enable_prefix_cache
    )
    outputs = run_all(engine, requests)
    assert engine.stats().num_preemptions > 0
    for request in requests:
        alone = run_alone(request)
        assert outputs[request.request_id].token_ids == alone.token_ids
        assert outputs[request.request_id].text == alone.text
    assert engine.stats().num_used_blocks == 0


def test_engine_prefills_in_chunks_between_decodes() -> None:
    """A long prompt never keeps a running sequence from its next token."""
    executor = FakeExecutor()
    engine = make_engine(executor, max_num_mixed_prefill_tokens=20)
    short, long = make_request(3, 30), make_request(200, 4)
    engine.add(short)
    engine.step()
    engine.add(long)
    answers = [{chunk.request_id for chunk in engine.step()} for _ in range(11)]
    assert all(short.request_id in answer for answer in answers)
    assert [long.request_id in answer for answer in answers] == [False] * 9 + [True, True]
    assert {len(step.token_ids) for step in executor.steps[1:11]} == {21}


def test_engine_uses_the_whole_budget_when_nobody_decodes() -> None:
    """A prompt alone is prefilled in chunks of max_num_batched_tokens."""
    executor = FakeExecutor()
    engine = make_engine(executor, max_num_batched_tokens=96)
    run_all(engine, [make_request(200, 1)])
    assert [len(step.token_ids) for step in executor.steps] == [96, 96, 8]


def test_engine_reuses_the_prefix_of_a_finished_request() -> None:
    """Full blocks of an earlier prompt and answer are not computed again, and are counted."""
    executor = FakeExecutor()
    engine = make_engine(executor)
    first = make_request(50, 20)
    answer = run_all(engine, [first])[first.request_id]
    turn = [*first.prompt_token_ids, *answer.token_ids, 1, 2, 3]
    second = make_request(turn, 5)
    num_steps = len(executor.steps)
    output = run_all(engine, [second])[second.request_id]
    # 69 of 70 tokens have been computed: the last one sampled never was.
    assert len(executor.steps[num_steps].token_ids) == len(turn) - 64
    assert output.last.usage is not None
    assert output.last.usage.num_cached_tokens == 64
    assert output.token_ids == run_alone(second).token_ids
    stats = engine.stats()
    assert stats.num_cached_tokens == 64
    assert stats.prefix_hit_rate == pytest.approx(64 / (50 + 73))


@pytest.mark.parametrize("length", [BLOCK_SIZE, 2 * BLOCK_SIZE, 2 * BLOCK_SIZE + 1])
def test_engine_computes_the_last_token_of_a_cached_prompt(length: int) -> None:
    """A prompt seen before in full still needs logits; at least one token is computed."""
    executor = FakeExecutor()
    engine = make_engine(executor)
    first, again = make_request(length), make_request(length)
    expected = run_all(engine, [first])[first.request_id].token_ids
    num_steps = len(executor.steps)
    assert run_all(engine, [again])[again.request_id].token_ids == expected
    computed = len(executor.steps[num_steps].token_ids)
    assert computed == length - (length - 1) // BLOCK_SIZE * BLOCK_SIZE


def test_engine_shares_no_prefix_across_salts() -> None:
    """What one client has asked does not speed up another's."""
    engine = make_engine()
    run_all(engine, [make_request(40, cache_salt="a")])
    other, same = make_request(40, cache_salt="b"), make_request(40, cache_salt="a")
    outputs = run_all(engine, [other, same])
    usage = {r: outputs[r.request_id].last.usage for r in (other, same)}
    assert usage[other].num_cached_tokens == 0
    assert usage[same].num_cached_tokens == 32


def test_engine_without_prefix_cache_computes_everything() -> None:
    """Switched off, the cache spares nothing."""
    engine = make_engine(enable_prefix_cache=False)
    run_all(engine, [make_request(40), make_request(40)])
    run_all(engine, [make_request(40)])
    assert engine.stats().num_cached_tokens == 0


def test_engine_stops_at_the_end_of_text_token() -> None:
    """EOS ends an answer with "stop"; it is among the tokens and not in the text."""
    request = make_request([5, 6], 400, ignore_eos=False, temperature=1.0, seed=3)
    output = run_alone(request)
    assert output.last.finish_reason == "stop"
    assert output.last.stop_reason is None
    assert output.token_ids[-1] == EOS
    assert output.text == "".join(spell(token) for token in output.token_ids[:-1])


def test_engine_ignores_the_end_of_text_token_on_request() -> None:
    """With ignore_eos it is a token like any other."""
    request = make_request([5, 6], 400, temperature=1.0, seed=3)
    output = run_alone(request)
    assert EOS in output.token_ids[:-1]
    assert output.last.finish_reason == "length"


@pytest.mark.parametrize("include", [False, True])
def test_engine_stops_at_a_stop_token(include: bool) -> None:
    """A token of stop_token_ids ends the answer and is named; its text is left out."""
    free = run_alone(make_request(9, 20))
    stop = next(t for i, t in enumerate(free.token_ids) if i >= 5 and t not in free.token_ids[:i])
    output = run_alone(
        make_request(9, 20, stop_token_ids=[stop], include_stop_str_in_output=include)
    )
    place = free.token_ids.index(stop)
    assert output.last.finish_reason == "stop"
    assert output.last.stop_reason == stop
    assert output.token_ids == free.token_ids[: place + 1]
    assert output.text == "".join(map(spell, free.token_ids[: place + include]))


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("start", range(8))
def test_engine_stops_at_a_stop_string_across_tokens(start: int, include: bool) -> None:
    """A stop string over three tokens ends generation in the step that completes it."""
    free = run_alone(make_request(11, 20))
    stop = "".join(map(spell, free.token_ids[start : start + 3]))
    place = free.text.index(stop)
    output = run_alone(
        make_request(11, 20, stop=["no such", stop], include_stop_str_in_output=include)
    )
    assert output.last.finish_reason == "stop"
    assert output.last.stop_reason == stop
    assert output.text == free.text[: place + include * len(stop)]
    assert len(output.token_ids) <= start + 3


def test_engine_emits_at_the_end_what_might_have_been_a_stop_string() -> None:
    """Text held back for a stop string that never came is not lost."""
    free = run_alone(make_request(11, 20))
    output = run_alone(make_request(11, 20, stop=[free.text[-3:] + "!"]))
    assert output.last.finish_reason == "length"
    assert output.text == free.text
    assert len(output.last.text) >= 3


def test_engine_lets_no_stop_string_end_the_first_min_tokens() -> None:
    """A stop string within min_tokens is just text."""
    free = run_alone(make_request(11, 20))
    stop = free.text[:2]
    output = run_alone(make_request(11, 20, stop=[stop], min_tokens=20))
    assert output.text == free.text
    assert output.last.finish_reason == "length"


def test_engine_fills_the_context_to_the_last_token() -> None:
    """Without max_tokens an answer ends exactly where the context does."""
    for length in (1, 15, 16, 17, 62, 63):
        request = make_request(length, None)
        output = run_alone(request, max_model_len=64)
        assert length + len(output.token_ids) == 64
        assert output.last.finish_reason == "length"


def test_engine_refuses_a_prompt_that_leaves_no_room() -> None:
    """A prompt as long as the context is refused with both numbers; nothing is cut."""
    engine = make_engine(max_model_len=64)
    with pytest.raises(ContextLengthError, match="65 tokens, the context holds 64") as caught:
        engine.add(make_request(64))
    assert (caught.value.num_tokens, caught.value.max_tokens) == (65, 64)
    assert not engine.has_work


@pytest.mark.parametrize("prompt", [[], [VOCAB_SIZE], [1, -1], [1.0], ["a"]])
def test_engine_refuses_a_prompt_outside_the_vocabulary(prompt: list[int]) -> None:
    """Bad ids are refused before anything is queued."""
    engine = make_engine()
    with pytest.raises(RequestError) as caught:
        engine.add(make_request(prompt))
    assert caught.value.parameter == "prompt"
    assert not engine.has_work


def test_engine_refuses_parameters_outside_the_vocabulary() -> None:
    """A stop token or bias for a token that does not exist is refused at the door."""
    engine = make_engine()
    with pytest.raises(RequestError, match="stop_token_ids"):
        engine.add(make_request(4, stop_token_ids=[VOCAB_SIZE]))


def test_engine_refuses_an_id_in_use() -> None:
    """Two unfinished requests cannot share an id; afterwards it is free again."""
    engine = make_engine()
    engine.add(make_request(4, request_id="a"))
    with pytest.raises(RequestError, match="'a' is in use"):
        engine.add(make_request(4, request_id="a"))
    run_all(engine)
    engine.add(make_request(4, request_id="a"))


def test_engine_refuses_a_cache_too_small_for_its_context() -> None:
    """An engine whose longest sequence could never run is not made."""
    with pytest.raises(ValueError, match="at least 65 tokens"):
        make_engine(FakeExecutor(num_blocks=4), max_model_len=65)
    with pytest.raises(ValueError, match="the executor takes 100"):
        make_engine(FakeExecutor(max_num_batched_tokens=100))


@pytest.mark.parametrize("num_steps", range(56))
def test_engine_abort_at_every_point_leaves_others_alone(num_steps: int) -> None:
    """An abort while queued, in each chunk and at each of 24 tokens frees its blocks only."""
    options = {"max_num_seqs": 2, "max_num_batched_tokens": 16}
    requests = [make_request(30, 24), make_request(40, 24), make_request(20, 24)]
    for victim in requests:
        engine = make_engine(FakeExecutor(num_blocks=9), **options)
        for request in requests:
            engine.add(request)
        early = [chunk for _ in range(num_steps) if engine.has_work for chunk in engine.step()]
        has_ended = any(c.request_id == victim.request_id and c.finish_reason for c in early)
        chunk = engine.abort(victim.request_id)
        engine.audit()
        if has_ended:
            assert chunk is None
        else:
            assert chunk is not None
            assert chunk.finish_reason == "abort"
        assert engine.abort(victim.request_id) is None
        outputs = run_all(engine)
        for request in requests:
            if request is not victim:
                mine = [c for c in early if c.request_id == request.request_id]
                mine += outputs[request.request_id].chunks if request.request_id in outputs else []
                tokens = tuple(token for chunk in mine for token in chunk.token_ids)
                assert tokens == run_alone(request).token_ids
        assert engine.stats().num_used_blocks == 0


def test_engine_abort_of_an_unknown_request_is_a_no_op() -> None:
    """Nothing happens for an id that was never seen."""
    assert make_engine().abort("nobody") is None


def test_engine_abort_emits_the_text_held_back() -> None:
    """An aborted answer's last chunk has the text that waited for a stop string."""
    free = run_alone(make_request(11, 20))
    engine = make_engine()
    request = make_request(11, 20, stop=[free.text + "!"])
    engine.add(request)
    texts = [chunk.text for _ in range(5) for chunk in engine.step()]
    assert texts == [""] * 5
    chunk = engine.abort(request.request_id)
    assert chunk is not None
    assert chunk.text == "".join(map(spell, free.token_ids[:5]))


@pytest.mark.parametrize("k", range(1, 13))
def test_engine_a_failing_allocation_fails_its_own_request_only(
    k: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever cannot be given blocks ends with an error, waiting or running; nothing leaks."""
    caplog.set_level(logging.CRITICAL)
    engine = make_engine(FakeExecutor(num_blocks=20), max_num_seqs=3, max_num_batched_tokens=48)
    pool = engine._scheduler.pool
    allocate, counts = pool.allocate, []

    def failing(count: int) -> list[int]:
        if count:
            counts.append(count)
            if len(counts) == k:
                raise MemoryError("injected")
        return allocate(count)

    pool.allocate = failing
    # With a common start, so that what fails may have been given blocks to share already.
    requests = [make_request([j * j % 32 for j in range(40 + 3 * i)], 30 + i) for i in range(6)]
    outputs = run_all(engine, requests)
    failed = [r for r in requests if outputs[r.request_id].last.finish_reason == "error"]
    assert len(failed) == 1
    assert "MemoryError" in (outputs[failed[0].request_id].last.error or "")
    for request in requests:
        tokens, expected = outputs[request.request_id].token_ids, run_alone(request).token_ids
        assert tokens == (expected[: len(tokens)] if request in failed else expected)
    assert engine.stats().num_used_blocks == 0


@pytest.mark.parametrize("k", range(1, 13))
def test_engine_a_nan_row_fails_that_request_only(k: int) -> None:
    """A row of NaN ends its request, whose blocks are not found again."""
    executor = FakeExecutor(nan_at={k})
    engine = make_engine(executor)
    requests = [make_request(33, 12), make_request(20, 12), make_request(40, 12)]
    outputs = run_all(engine, requests)
    victim, *others = requests
    last = outputs[victim.request_id].last
    assert last.finish_reason == "error"
    assert "numerical" in (last.error or "")
    assert len(outputs[victim.request_id].token_ids) == k - 1
    for request in others:
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids
    again = make_request(33, 8)
    output = run_all(engine, [again])[again.request_id]
    assert output.last.usage is not None
    assert output.last.usage.num_cached_tokens == 0
    assert output.token_ids == run_alone(again).token_ids


def test_engine_a_token_that_cannot_be_spelled_fails_that_request_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error while taking in a token is that sequence's own."""
    caplog.set_level(logging.CRITICAL)

    class Broken:
        def push(self, token_id: int) -> str:
            raise IndexError("no such token")

        def flush(self) -> str:
            return ""

    good = make_engine()._new_detokenizer
    engine = make_engine(new_detokenizer=lambda ids, _: Broken() if len(ids) == 7 else good(ids, _))
    bad, fine = make_request(7), make_request(8)
    outputs = run_all(engine, [bad, fine])
    assert outputs[bad.request_id].last.finish_reason == "error"
    assert outputs[fine.request_id].token_ids == run_alone(fine).token_ids


def test_engine_turns_a_leak_into_errors_instead_of_hanging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Should blocks ever be lost, waiting requests end with an error and the audit says so."""
    caplog.set_level(logging.CRITICAL)
    engine = make_engine(FakeExecutor(num_blocks=4))
    engine._scheduler.pool.allocate(3)
    request = make_request(40)
    engine.add(request)
    (chunk,) = engine.step()
    assert chunk.finish_reason == "error"
    assert not engine.has_work
    with pytest.raises(AssertionError, match="1 owners, 0 tables"):
        engine.audit()


def test_engine_seed_makes_unseeded_requests_repeatable() -> None:
    """The same engine seed and order of submission give the same answers, another seed others."""
    params = SamplingParams(temperature=1.0, max_tokens=20)
    answers = []
    for seed in (1, 1, 2):
        engine = make_engine(seed=seed)
        outputs = run_all(engine, [Request("a", (1, 2), params), Request("b", (1, 2), params)])
        answers.append((outputs["a"].token_ids, outputs["b"].token_ids))
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
    assert answers[0][0] != answers[0][1]


def test_engine_samples_only_real_tokens() -> None:
    """Columns of the logits beyond the tokenizer's vocabulary are never sampled."""
    engine = Engine(
        FakeExecutor(),
        make_engine()._new_detokenizer,
        eos_ids=frozenset(),
        max_model_len=512,
        vocab_size=10,
    )
    request = make_request([1, 2, 3], 200, temperature=5.0)
    assert max(run_all(engine, [request])[request.request_id].token_ids) == 9


def test_engine_counts_what_it_does() -> None:
    """Stats add up: requests, tokens, steps, and nothing left in use."""
    engine = make_engine()
    requests = [make_request(10, 4), make_request(20, 6)]
    engine.add(requests[0])
    assert (engine.stats().num_waiting, engine.stats().num_running) == (1, 0)
    engine.step()
    stats = engine.stats()
    assert (stats.num_waiting, stats.num_running) == (0, 1)
    assert stats.num_used_blocks == 1
    assert stats.kv_usage == pytest.approx(1 / 64)
    run_all(engine, requests[1:])
    stats = engine.stats()
    assert (stats.num_requests, stats.num_finished, stats.num_failed) == (2, 2, 0)
    assert (stats.num_prompt_tokens, stats.num_generated_tokens) == (30, 10)
    assert stats.num_steps == 7
    assert stats.num_used_blocks == 0
    assert stats.last_step_s > 0


def test_engine_reports_usage_and_timings_with_the_last_chunk() -> None:
    """Only the last chunk carries totals, and the times add up."""
    request = make_request(10, 4)
    output = run_alone(request)
    assert [chunk.usage is None for chunk in output.chunks] == [True] * 3 + [False]
    usage, timings = output.last.usage, output.last.timings
    assert usage is not None
    assert timings is not None
    assert (usage.num_prompt_tokens, usage.num_generated_tokens) == (10, 4)
    assert min(timings.queue_s, timings.prefill_s, timings.decode_s) >= 0


def test_engine_close_drops_requests_and_frees_the_model() -> None:
    """After close nothing is in use."""
    executor = FakeExecutor()
    engine = make_engine(executor)
    engine.add(make_request(5))
    engine.step()
    engine.close()
    engine.audit()
    assert not engine.has_work
    assert executor.num_closes == 1
