"""A user's own functions on the logits."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.fake import VOCAB_SIZE, make_engine, make_request, run_all, run_alone

Logits = NDArray[np.float32]


def only(token_id: int) -> Any:
    """A processor that leaves one token."""

    def processor(prompt_ids: Sequence[int], output_ids: Sequence[int], logits: Logits) -> Logits:
        logits[:] = -np.inf
        logits[token_id] = 0
        return logits

    return processor


def test_processors_see_prompt_output_and_logits() -> None:
    """Each token's call gets the ids so far and a row of its own, and what it returns is drawn."""
    calls: list[tuple[list[int], list[int], int]] = []

    def after_the_last(
        prompt_ids: Sequence[int], output_ids: Sequence[int], logits: Logits
    ) -> Logits:
        assert logits.shape == (VOCAB_SIZE,)
        assert logits.dtype == np.float32
        calls.append((list(prompt_ids), list(output_ids), int(np.argmax(logits))))
        return only((output_ids[-1] + 1) % VOCAB_SIZE if output_ids else 5)([], [], logits)

    request = make_request(20, 4, logits_processors=[after_the_last])
    output = run_alone(request)
    assert output.token_ids == (5, 6, 7, 8)
    assert [(prompt, out) for prompt, out, _ in calls] == [
        (list(request.prompt_token_ids), list(range(5, 5 + i))) for i in range(4)
    ]
    assert calls[0][2] == run_alone(make_request(20, 4)).token_ids[0]


def test_processors_act_in_turn_and_before_the_sampler() -> None:
    """The second gets what the first returned; bias and logprobs act on the result."""
    add = [lambda _, __, logits: logits * 0 + 1.0, lambda _, __, logits: logits.astype(float)]
    request = make_request(9, 3, logits_processors=add, logit_bias={7: 2.0}, logprobs=0)
    output = run_alone(request)
    assert output.token_ids == (7, 7, 7)
    assert output.chunks[0].logprobs is not None
    assert output.chunks[0].logprobs[0].logprob == pytest.approx(-np.log(VOCAB_SIZE))


def test_processors_change_nobody_else() -> None:
    """A neighbour in the same steps answers as it does alone; preemption shows nothing either."""
    requests = [
        make_request(10 + 7 * i, 12, logits_processors=[only(3)] if i % 2 else ()) for i in range(6)
    ]
    outputs = run_all(make_engine(max_num_seqs=4), requests)
    for place, request in enumerate(requests):
        wanted = (3,) * 12 if place % 2 else run_alone(request).token_ids
        assert outputs[request.request_id].token_ids == wanted


def raises(_: Any, output_ids: Sequence[int], logits: Logits) -> Logits:
    if len(output_ids) == 2:
        raise LookupError("no such word")
    return logits


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (raises, "LookupError: no such word"),
        (lambda *_: None, "a logits processor failed"),
        (lambda *_: np.zeros(5, np.float32), r"shape \(32,\), found \(5,\)"),
        (lambda *_: "logits", "a logits processor failed"),
        (lambda _, __, logits: logits * np.nan, "numerical"),
        (lambda _, __, logits: logits - np.inf, "numerical"),
    ],
)
def test_processors_that_fail_fail_their_request_only(
    processor: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception, a wrong shape or no numbers ends the request with the reason."""
    caplog.set_level(logging.CRITICAL)
    bad = make_request(10, 5, logits_processors=[processor], n=2, temperature=1.0, seed=1)
    good = make_request(12, 5)
    engine = make_engine()
    outputs = run_all(engine, [bad, good])
    last = outputs[bad.request_id].last
    assert last.finish_reason == "error"
    assert last.is_last
    assert re.search(message, last.error or "")
    assert outputs[good.request_id].token_ids == run_alone(good).token_ids
    assert engine.stats().num_used_blocks == 0
