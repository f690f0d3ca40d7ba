"""Constrained requests in the engine: alone or together, preempted, failing, thinking."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.fake import Collected, make_engine, make_request, run_all
from quintet.config import EngineConfig
from quintet.engine.engine import Engine
from quintet.engine.loading import ModelOptions, load
from quintet.engine.request import Request
from quintet.engine.thread import EngineThread
from quintet.errors import RequestError
from quintet.hub.resolve import resolve
from quintet.parsing.thinking import Thinking
from quintet.sampling import Constraint, SamplingParams
from quintet.sampling.matcher import ConstraintMatcher

CONSTRAINTS = [
    None,
    Constraint.regex("[a-c]{40}"),
    Constraint.json_schema({"type": "array", "items": {"type": "integer"}, "minItems": 4}),
    Constraint.choice(["yes, of course", "no, not at all"]),
    Constraint.lark('start: ("ab" | "c")+ "."'),
    Constraint.gbnf('root ::= [x-z]+ "!"'),
]


def load_tiny(path: Path, **options: int) -> Engine:
    config = EngineConfig(seed=0, **options)
    return load(path, ModelOptions(num_threads=1), config).engine


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[Engine]:
    engine = load_tiny(tiny_model)
    yield engine
    engine.close()


def requests() -> list[Request]:
    return [
        Request(
            f"r{i}",
            tuple((j * j + i) % 250 for j in range(5 + 6 * i)),
            SamplingParams(
                max_tokens=48,
                temperature=1.5 * (i % 2),
                seed=i,
                logprobs=1,
                constraint=CONSTRAINTS[i % len(CONSTRAINTS)],
            ),
        )
        for i in range(12)
    ]


def bits(output: Collected) -> list:
    return [(chunk.token_ids, chunk.logprobs, chunk.text) for chunk in output.chunks]


def test_constrained_requests_together_answer_as_alone(tiny_model: Path) -> None:
    """Neighbours, chunked prefill and preemption change no bit of a constrained answer."""
    engine = load_tiny(tiny_model, enable_prefix_cache=False)
    alone = {}
    for request in requests():
        alone.update(run_all(engine, [request]))
    engine.close()
    block_bytes = 4096  # 16 tokens, 2 layers, 2 heads of 16, keys and values in bfloat16
    for options in (
        {},
        {"max_num_batched_tokens": 40, "max_num_seqs": 16},
        {"kv_cache_bytes": 18 * block_bytes},
    ):
        engine = load_tiny(tiny_model, **options)
        together = run_all(engine, requests())
        num_preemptions = engine.stats().num_preemptions
        engine.close()
        assert num_preemptions > 0 or "kv_cache_bytes" not in options
        for name, output in alone.items():
            assert bits(together[name]) == bits(output), name


def test_an_answer_that_ends_by_itself_has_the_form(engine: Engine) -> None:
    """Random weights at a high temperature say what the constraint allows, and end by EOS."""
    params = {"temperature": 1.5, "ignore_eos": False, "constraint": CONSTRAINTS[1]}
    batch = [make_request([3, i], 60, seed=i, **params) for i in range(8)]
    for output in run_all(engine, batch).values():
        assert output.last.finish_reason == "stop"
        assert re.fullmatch("[a-c]{40}", output.text)
        assert output.last.hides_last_token


def test_an_answer_that_may_not_end_by_a_token_ends_with_its_form(engine: Engine) -> None:
    """With ignore_eos it stops when nothing more is allowed, without a token for it."""
    request = make_request([3, 4], 60, constraint=CONSTRAINTS[3])
    output = run_all(engine, [request])[request.request_id]
    assert output.last.finish_reason == "stop"
    assert output.text in ("yes, of course", "no, not at all")
    assert len(output.token_ids) == len(output.text)
    assert not output.last.hides_last_token


def test_min_tokens_gives_way_to_the_constraint(engine: Engine) -> None:
    """Where the form is complete there is nothing else to say."""
    request = make_request(
        [3], 60, min_tokens=50, ignore_eos=False, constraint=Constraint.choice(["ok"])
    )
    assert run_all(engine, [request])[request.request_id].text == "ok"


def test_a_thought_comes_first(engine: Engine) -> None:
    """Inside a thought nothing is constrained; one that does not end is no answer."""
    request = Request(
        "thinks",
        (1, 2),
        SamplingParams(max_tokens=30, temperature=0, constraint=CONSTRAINTS[3]),
        thinking=Thinking.OPEN,
    )
    free = Request("free", (1, 2), SamplingParams(max_tokens=30, temperature=0, ignore_eos=True))
    outputs = run_all(engine, [request, free])
    assert outputs["thinks"].last.finish_reason == "length"
    assert outputs["thinks"].token_ids == outputs["free"].token_ids


def test_a_failing_matcher_fails_its_request_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the mask or the token cannot be worked out, the others do not notice."""
    caplog.set_level(logging.CRITICAL)
    expected = {}
    for request in requests()[:4]:
        expected.update(run_all(engine, [request]))
    accept = ConstraintMatcher.accept
    num_accepted = 0

    def failing_accept(self: ConstraintMatcher, token_id: int) -> None:
        nonlocal num_accepted
        num_accepted += self is bad
        if self is bad and num_accepted == 5:
            raise ValueError("injected")
        accept(self, token_id)

    batch = requests()[:4]
    bad = engine.new_matcher(batch[1])
    assert bad is not None
    monkeypatch.setattr(ConstraintMatcher, "accept", failing_accept)
    engine.add(batch[1], bad)
    outputs = run_all(engine, [batch[0], batch[2], batch[3]])
    assert outputs[batch[1].request_id].last.finish_reason == "error"
    for request in (batch[0], batch[2], batch[3]):
        assert bits(outputs[request.request_id]) == bits(expected[request.request_id])

    # Llguidance's own failure: it has been given a token that does not fit.
    monkeypatch.undo()
    bad = engine.new_matcher(batch[1])
    assert bad is not None
    with pytest.raises(ValueError, match="does not allow"):
        bad.accept(250)
    engine.add(batch[1], bad)
    outputs = run_all(engine, [batch[2]])
    assert outputs[batch[1].request_id].last.finish_reason == "error"
    assert "constraint" in (outputs[batch[1].request_id].last.error or "")
    assert bits(outputs[batch[2].request_id]) == bits(expected[batch[2].request_id])


def test_a_bad_constraint_is_refused_before_it_is_queued(tiny_model: Path) -> None:
    """The caller gets the error; the engine's loop never sees the request."""
    client = EngineThread(load_tiny(tiny_model))
    bad = make_request(5, constraint=Constraint.regex("("))
    for refuse in (client.check, client.submit):
        with pytest.raises(RequestError, match="does not compile") as error:
            refuse(bad)
        assert error.value.parameter == "constraint"
    assert client.stats().num_requests == 0
    client.close()


def test_an_engine_without_a_tokenizer_refuses_constraints() -> None:
    """It cannot know what its tokens spell."""
    with pytest.raises(RequestError, match="tokenizer"):
        make_engine().add(make_request(5, constraint=Constraint.regex("a")))


def test_a_thought_is_allowed_before_the_form_and_ends_where_the_model_ends_it() -> None:
    """A bias makes the packaged model open, or end, a thought: the form then binds the rest."""
    config = EngineConfig(seed=0)
    loaded = load(resolve("demo"), ModelOptions(num_threads=1), config)
    start, end = (loaded.tokenizer.token_to_id(mark) for mark in ("<think>", "</think>"))
    prompt = tuple(loaded.tokenizer.encode("Yes or no?"))

    def answer(thinking: Thinking, bias: int) -> tuple[int, ...]:
        params = SamplingParams(
            max_tokens=8,
            temperature=0,
            logit_bias={bias: 100.0},
            constraint=Constraint.choice(["no"]),
        )
        request = Request("r", prompt, params, thinking=thinking)
        return run_all(loaded.engine, [request])["r"].token_ids

    assert answer(Thinking.POSSIBLE, start) == (start,) * 8
    assert answer(Thinking.NONE, start)[0] != start
    assert answer(Thinking.OPEN, end)[0] == end
    for thinking, first in ((Thinking.OPEN, 1), (Thinking.POSSIBLE, 0)):
        assert loaded.tokenizer.decode(answer(thinking, end)[first:]) == "no"
    loaded.engine.close()


def thoughtful(prompt: int, budget: int | None, **params: object) -> Request:
    """Forty tokens after a prompt that has opened a thought."""
    return Request(
        f"thought-{prompt}-{budget}",
        tuple((j * j + prompt) % 250 for j in range(prompt)),
        SamplingParams(max_tokens=40, ignore_eos=True, seed=prompt, **params),
        thinking=Thinking.OPEN,
        max_thinking_tokens=budget,
    )


@pytest.mark.parametrize("budget", [0, 1, 7, 39, 100])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_thought_ends_when_its_budget_is_spent(
    engine: Engine, budget: int, temperature: float
) -> None:
    """Until then no bit is another; then its end mark comes, here letter by letter, and then what
    the model likes."""
    requests = [thoughtful(9, each, temperature=temperature) for each in (None, budget)]
    free, bound = (run_all(engine, [request])[request.request_id] for request in requests)
    assert bound.token_ids[:budget] == free.token_ids[:budget]
    mark = "</think>"[: max(0, 40 - budget)]
    closing = "".join(chunk.text for chunk in bound.chunks[budget : budget + len(mark)])
    assert closing == mark
    assert len(bound.token_ids) == len(free.token_ids) == 40


def test_budgets_of_thoughts_are_each_requests_own(engine: Engine) -> None:
    """Requests together, with constraints behind the thought and without, answer as alone."""
    shape = Constraint.regex("[a-c]{20}")

    def requests() -> list[Request]:
        constraints = (None, shape)
        return [
            thoughtful(5 + i, budget, temperature=1.0, constraint=constraints[i % 2])
            for i, budget in enumerate((None, 3, 5, 5, 0, 0))
        ]

    alone = [run_all(engine, [request])[request.request_id] for request in requests()]
    together = run_all(engine, requests())
    for request, output in zip(requests(), alone, strict=True):
        assert bits(together[request.request_id]) == bits(output)
        if request.params.constraint and request.max_thinking_tokens is not None:
            answer = output.text.partition("</think>")[2]
            assert re.fullmatch("[a-c]{20}", answer), output.text


def test_a_budget_needs_a_tokenizer() -> None:
    """An engine without one refuses rather than ignores it; what does not think needs none."""
    engine = make_engine()
    with pytest.raises(RequestError, match="max_thinking_tokens"):
        engine.add(thoughtful(5, 3))
    engine.add(make_request(5, 3))
    with pytest.raises(RequestError, match="max_thinking_tokens"):
        thoughtful(5, -1)
