"""The context is full: an exact error by default, a sliding window on request."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from engine.fake import FakeExecutor, Prophet, make_engine, make_request, run_all, run_alone
from quintet.backends.base import BLOCK_SIZE
from quintet.engine.overflow import MIN_SLIDING_LEN, num_dropped
from quintet.engine.request import Request
from quintet.errors import ContextLengthError, RequestError
from quintet.sampling.params import SamplingParams

CONTEXT = 64


def slid(request: Request, max_model_len: int) -> tuple[list[int], int]:
    """The answer by the definition, one token at a time, each from a model that sees no more
    than what is left; and the number of tokens dropped."""
    keep = request.num_keep_tokens
    context, answer, dropped = list(request.prompt_token_ids), [], 0
    while True:
        while len(context) >= max_model_len:
            goal = keep + (max_model_len - keep) // 2
            count = BLOCK_SIZE
            while len(context) - count > goal:
                count += BLOCK_SIZE
            del context[keep : keep + count]
            dropped += count
        if len(answer) == request.params.max_tokens:
            return answer, dropped
        token = run_alone(make_request(context, 1)).token_ids[0]
        context.append(token)
        answer.append(token)
        if len(answer) == request.params.max_tokens:
            return answer, dropped


@pytest.mark.parametrize("keep", [0, 5, 16, 20, 32])
@pytest.mark.parametrize("length", [3, 40, 63, 64, 200])
def test_sliding_context_answers_from_what_is_left(length: int, keep: int) -> None:
    """Every token is what the model says to the kept start and the tokens not dropped."""
    request = make_request(length, 150, overflow="slide", num_keep_tokens=keep)
    engine = make_engine(FakeExecutor(num_blocks=8), max_model_len=CONTEXT)
    output = run_all(engine, [request])[request.request_id]
    answer, dropped = slid(request, CONTEXT)
    assert list(output.token_ids) == answer
    assert output.last.finish_reason == "length"
    usage = output.last.usage
    assert (usage.num_prompt_tokens, usage.num_generated_tokens) == (length, 150)
    assert usage.num_dropped_tokens == dropped > 0
    assert engine.stats().num_used_blocks == 0


def test_sliding_contexts_together_answer_as_alone() -> None:
    """Sliding, preemption, guesses and neighbours do not mix."""
    asked = [
        make_request(10 + 7 * i, 100 + i, overflow="slide", num_keep_tokens=3 * i) for i in range(8)
    ]
    alone = {r.request_id: run_alone(r, max_model_len=CONTEXT).token_ids for r in asked}
    for num_blocks in (6, 40):
        engine = make_engine(
            FakeExecutor(num_blocks=num_blocks),
            max_model_len=CONTEXT,
            drafter=Prophet(alone, wrong_every=6),
        )
        outputs = run_all(engine, asked)
        assert {name: output.token_ids for name, output in outputs.items()} == alone
        assert engine.stats().num_accepted_tokens > 0


def test_sliding_context_keeps_its_first_blocks_in_the_cache() -> None:
    """What is kept is not computed again: only the rest is."""
    executor = FakeExecutor()
    engine = make_engine(executor, max_model_len=128)
    run_all(engine, [make_request(100, 60, overflow="slide", num_keep_tokens=64)])
    recomputed = [len(step.token_ids) for step in executor.steps[1:] if len(step.token_ids) > 1]
    assert recomputed
    assert max(recomputed) <= 128 - 64


def test_sliding_context_leaves_its_blocks_to_be_found() -> None:
    """Who asks with what is left of the context finds it computed, new positions and all."""
    engine = make_engine(max_model_len=128)
    request = make_request(100, 80, overflow="slide")
    output = run_all(engine, [request])[request.request_id]
    text = [*request.prompt_token_ids, *output.token_ids]
    left = text[output.last.usage.num_dropped_tokens :]
    again = make_request(left, 3)
    usage = run_all(engine, [again])[again.request_id].last.usage
    assert usage.num_cached_tokens == (len(left) - 1) // BLOCK_SIZE * BLOCK_SIZE


def test_context_overflow_is_an_error_by_default() -> None:
    """Nothing is dropped unless asked for."""
    engine = make_engine(max_model_len=CONTEXT)
    with pytest.raises(ContextLengthError):
        engine.add(make_request(64, 5))
    request = make_request(60, None)
    output = run_all(engine, [request])[request.request_id]
    assert len(output.token_ids) == 4
    assert output.last.usage.num_dropped_tokens == 0


def test_sliding_context_is_refused_where_it_cannot_work() -> None:
    """Without a bound on the answer, with too much to keep, or in a tiny context."""
    with pytest.raises(RequestError, match="max_tokens"):
        Request("a", (1,), SamplingParams(max_tokens=None), overflow="slide")
    engine = make_engine(max_model_len=CONTEXT)
    with pytest.raises(RequestError, match=r"num_keep_tokens: expected at most half .* 32"):
        engine.add(make_request(5, overflow="slide", num_keep_tokens=33))
    with pytest.raises(RequestError, match="overflow"):
        make_engine(max_model_len=63).add(make_request(5, overflow="slide"))


@given(st.data())
def test_num_dropped_always_leaves_room_and_something_to_go_on_from(data: st.DataObject) -> None:
    """Whole blocks, never the kept tokens, never all that follows them."""
    context = data.draw(st.integers(MIN_SLIDING_LEN, 5000))
    keep = data.draw(st.integers(0, context // 2))
    length = data.draw(st.integers(1, 20_000))
    count = num_dropped(length, max_model_len=context, num_keep_tokens=keep)
    if length < context:
        assert count == 0
    else:
        assert count % BLOCK_SIZE == 0
        assert keep < length - count <= keep + (context - keep) // 2
