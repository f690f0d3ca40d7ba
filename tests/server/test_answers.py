"""Answers put together from an engine's chunks."""

from __future__ import annotations

import pytest

from quintet import AsyncLLM
from quintet.engine.output import OutputChunk, TokenLogprob
from quintet.sampling import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.answers import Answer, collect
from quintet.server.models import Models
from quintet.server.requests import GenerationRequest

from .harness import run

LOGPROBS = (TokenLogprob(5, -1.0, ()), TokenLogprob(6, -2.0, ()))


@pytest.mark.parametrize("is_hidden", [True, False])
def test_a_hidden_last_token_is_set_apart(is_hidden: bool):
    """A stop token is no text, but it has its log probability all the same."""
    answer = Answer()
    answer.add(
        OutputChunk("r", logprobs=LOGPROBS, finish_reason="stop", hides_last_token=is_hidden)
    )
    assert answer.logprobs == list(LOGPROBS[: 1 if is_hidden else 2])
    assert answer.ending == (LOGPROBS[1] if is_hidden else None)


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
