"""Log probabilities of prompts, and echo, over a model whose logits depend on every token."""

import logging

import numpy as np
import pytest

from engine.fake import (
    Collected,
    FakeExecutor,
    make_engine,
    make_request,
    run_all,
    run_alone,
    spell,
)
from quintet.backends.base import StepInput
from quintet.engine.output import PromptLogprobs


def all_logits(token_ids: tuple[int, ...]) -> np.ndarray:
    """[len(token_ids), VOCAB_SIZE]: the model's logits after each token."""
    n = len(token_ids)
    executor = FakeExecutor(num_blocks=16, max_num_batched_tokens=n, max_logits_rows=n)
    places = np.arange(n, dtype=np.int32)
    step = StepInput(
        token_ids=np.array(token_ids, np.int32),
        positions=places,
        cu_seqlens=np.array([0, n], np.int32),
        slot_mapping=places,
        block_tables=np.arange(16, dtype=np.int32)[None],
        seq_lens=np.array([n], np.int32),
        logits_rows=places,
    )
    return executor.run(step).astype(np.float64)


def assert_scored(found: PromptLogprobs | None, token_ids: tuple[int, ...], num_top: int) -> None:
    """`found` is the log-softmax of the logits before each token."""
    assert found is not None
    assert len(found) == len(token_ids)
    assert found[0] is None
    logits = all_logits(token_ids)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for place in range(1, len(token_ids)):
        entry = found[place]
        assert entry is not None
        row = logprobs[place - 1]
        assert entry.token_id == token_ids[place]
        assert entry.logprob == pytest.approx(row[token_ids[place]], abs=1e-5)
        best = np.argsort(-row)[:num_top]
        assert [token_id for token_id, _ in entry.top] == best.tolist()
        assert [logprob for _, logprob in entry.top] == pytest.approx(row[best], abs=1e-5)


def prompt_logprobs(output: Collected) -> PromptLogprobs | None:
    """What a request's chunks say of its prompt; it must come once, with the first token."""
    scored = [chunk for chunk in output.chunks if chunk.prompt_logprobs is not None]
    assert [chunk is output.chunks[0] for chunk in scored] == [True]
    return scored[0].prompt_logprobs


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 100])
@pytest.mark.parametrize(
    ("max_logits_rows", "options"),
    [
        (64, {}),
        (1, {"max_num_seqs": 1}),
        (3, {"max_num_seqs": 2}),
        (64, {"max_num_batched_tokens": 7, "max_num_seqs": 2}),
        (40, {"max_num_seqs": 8, "enable_prefix_cache": False}),
    ],
    ids=str,
)
def test_prompt_logprobs_are_the_models_own(
    length: int, max_logits_rows: int, options: dict[str, int]
) -> None:
    """However the prompt is cut into steps, each token is scored by the logits before it."""
    engine = make_engine(FakeExecutor(max_logits_rows=max_logits_rows), **options)
    request = make_request(length, 4, prompt_logprobs=3)
    output = run_all(engine, [request])[request.request_id]
    assert_scored(prompt_logprobs(output), request.prompt_token_ids, 3)
    assert output.token_ids == run_alone(make_request(length, 4)).token_ids


def test_prompt_logprobs_do_not_come_from_the_cache() -> None:
    """A prompt that is cached is scored all the same, and its blocks are shared again after."""
    engine = make_engine()
    run_all(engine, [make_request(50)])
    scored = make_request(50, prompt_logprobs=0)
    output = run_all(engine, [scored])[scored.request_id]
    assert_scored(prompt_logprobs(output), scored.prompt_token_ids, 0)
    assert output.last.usage is not None
    assert output.last.usage.num_cached_tokens == 0
    plain = make_request(50)
    usage = run_all(engine, [plain])[plain.request_id].last.usage
    assert usage is not None
    assert usage.num_cached_tokens == 48


def test_prompt_logprobs_change_no_other_answer() -> None:
    """Requests beside scored ones give their tokens, and none is held up for ever."""
    requests = [
        make_request(3 + 9 * i, 10, prompt_logprobs=2 if i % 2 else None, temperature=0.8, seed=i)
        for i in range(8)
    ]
    engine = make_engine(
        FakeExecutor(max_logits_rows=9), max_num_seqs=8, max_num_mixed_prefill_tokens=20
    )
    outputs = run_all(engine, requests)
    for request in requests:
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids
        if request.params.prompt_logprobs is not None:
            found = prompt_logprobs(outputs[request.request_id])
            assert_scored(found, request.prompt_token_ids, 2)


@pytest.mark.parametrize("max_logits_rows", [4, 20])
def test_prompt_logprobs_survive_preemption(max_logits_rows: int) -> None:
    """A prompt is scored once, however often its sequence starts again, half-way or done."""
    executor = FakeExecutor(num_blocks=10, max_logits_rows=max_logits_rows)
    engine = make_engine(executor, max_num_seqs=4, max_num_mixed_prefill_tokens=8)
    requests = [make_request(20 + 5 * i, 40, prompt_logprobs=1) for i in range(4)]
    outputs = run_all(engine, requests)
    assert engine.stats().num_preemptions > 0
    num_rows = sum(len(step.logits_rows) for step in executor.steps)
    assert num_rows == sum(len(r.prompt_token_ids) - 1 + 40 for r in requests)
    for request in requests:
        found = prompt_logprobs(outputs[request.request_id])
        assert_scored(found, request.prompt_token_ids, 1)
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids


def test_prompt_logprobs_of_a_bad_row_fail_that_request_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """NaN among a prompt's logits ends its request; its neighbour answers as ever."""
    caplog.set_level(logging.CRITICAL)
    engine = make_engine(FakeExecutor(nan_at={1}))
    bad, good = make_request(30, prompt_logprobs=0), make_request(12)
    outputs = run_all(engine, [bad, good])
    assert outputs[bad.request_id].last.finish_reason == "error"
    assert "numerical" in (outputs[bad.request_id].last.error or "")
    assert outputs[good.request_id].token_ids == run_alone(good).token_ids


def test_engine_needs_a_row_of_logits_for_every_sequence() -> None:
    """An executor with fewer rows than sequences may run is refused."""
    with pytest.raises(ValueError, match="logits of up to 9 rows"):
        make_engine(FakeExecutor(max_logits_rows=8), max_num_seqs=9)


def test_echo_puts_the_prompt_before_the_answer() -> None:
    """The text begins with the prompt's; tokens and stop strings are the answer's alone."""
    plain = make_request(20, 5)
    echoed = make_request(20, 5, echo=True)
    prompt_text = "".join(map(spell, plain.prompt_token_ids))
    assert run_alone(echoed).text == prompt_text + run_alone(plain).text
    assert run_alone(echoed).token_ids == run_alone(plain).token_ids
    stopped = make_request(20, 5, echo=True, stop=[prompt_text[:2]])
    assert run_alone(stopped).text.startswith(prompt_text)
