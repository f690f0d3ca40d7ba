"""Answers put together from an engine's chunks."""

from __future__ import annotations

from typing import Any

import pytest

from quintet import AsyncLLM
from quintet.engine.output import OutputChunk, TokenLogprob
from quintet.sampling import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.answers import Answer, collect
from quintet.server.engines import GenerationRequest
from quintet.server.models import Models

from .harness import run

LOGPROBS = (TokenLogprob(5, -1.0, ()), TokenLogprob(6, -2.0, ()))


@pytest.mark.parametrize(
    ("params", "end", "num_text_tokens"),
    [
        ({}, {"finish_reason": "stop"}, 1),  # an end-of-text token
        ({}, {"finish_reason": "stop", "stop_reason": "x"}, 2),
        ({}, {"finish_reason": "length"}, 2),
        ({}, {"finish_reason": "timeout"}, 2),
        ({"stop_token_ids": [6]}, {"finish_reason": "stop", "stop_reason": 6}, 1),
        (
            {"stop_token_ids": [6], "include_stop_str_in_output": True},
            {"finish_reason": "stop", "stop_reason": 6},
            2,
        ),
        ({"ignore_eos": True}, {"finish_reason": "stop"}, 2),  # the constraint's end
        ({"ignore_eos": True, "stop_token_ids": [6]},
         {"finish_reason": "stop", "stop_reason": 6}, 1),
    ],
)  # fmt: skip
def test_the_last_token_counts_where_it_is_text(
    params: dict[str, Any], end: dict[str, Any], num_text_tokens: int
):
    """A stop token is no text; what a constraint or a stop string ends with is."""
    answer = Answer(params=SamplingParams(**params))
    answer.add(OutputChunk("r", logprobs=LOGPROBS, **end))
    assert answer.logprobs == list(LOGPROBS[:num_text_tokens])
    assert answer.ending == (None if num_text_tokens == 2 else LOGPROBS[1])


def test_a_constraint_ends_an_answer_with_its_last_token():
    """With no token that ends a text, all tokens of a constrained answer are its text."""

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1) as llm:
            params = SamplingParams(
                max_tokens=20, temperature=0, logprobs=0, ignore_eos=True,
                constraint=Constraint.choice(["yes"]),
            )  # fmt: skip
            models = Models.of({"m": llm})
            async with models.use("m") as model:
                (answer,) = await collect(model, [GenerationRequest("Well?", params)])
            assert answer.text == "yes"
            spelled = b"".join(llm.tokenizer.token_bytes(i.token_id) for i in answer.logprobs)
            assert spelled == b"yes"

    run(main())
