"""A second model that guesses, with a cache of its own."""

import logging
from pathlib import Path

import numpy as np
import pytest

from engine.fake import VOCAB_SIZE, FakeExecutor, make_engine, make_request, run_all, run_alone
from engine.tiny_model import write_tiny_hf_model
from quintet import LLM, SamplingParams
from quintet.engine.engine import Engine
from quintet.engine.speculation.draft_model import ModelDrafter
from quintet.errors import RequestError


class NearlyAlike(FakeExecutor):
    """The same model as FakeExecutor, except that some tokens come out differently."""

    def _logits(self, step, row):
        logits = super()._logits(step, row)
        return np.roll(logits, 1) if step.positions[row] % 5 == 0 else logits


def make_drafting_engine(small: FakeExecutor, executor: FakeExecutor, **options) -> Engine:
    drafter = ModelDrafter(
        small, vocab_size=VOCAB_SIZE, max_draft_tokens=4, max_num_mixed_prefill_tokens=64
    )
    return make_engine(executor, drafter=drafter, **options)


def run_audited(engine: Engine, requests: list) -> dict:
    """As run_all, with the draft model's blocks checked as well."""
    drafter = engine._speculator._drafter
    step = engine.step

    def audited_step():
        chunks = step()
        drafter.audit()
        return chunks

    engine.step = audited_step
    outputs = run_all(engine, requests)
    assert drafter._pool.num_available == drafter._pool.num_blocks
    return outputs


@pytest.mark.parametrize("num_blocks", [9, 14, 64])
@pytest.mark.parametrize("num_small_blocks", [3, 12, 64])
def test_draft_model_changes_no_answer(num_blocks: int, num_small_blocks: int) -> None:
    """However scarce either model's blocks are."""
    small, large = NearlyAlike(num_blocks=num_small_blocks), FakeExecutor(num_blocks=num_blocks)
    engine = make_drafting_engine(small, large)
    asked = [make_request(1 + 5 * i, 20 + i) for i in range(16)]
    outputs = run_audited(engine, asked)
    for request in asked:
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids
    assert engine.stats().num_accepted_tokens > 0


def test_draft_model_reads_each_token_once_where_it_is_right() -> None:
    """Guesses that came true are not computed again, wrong ones are overwritten."""
    small, large = FakeExecutor(), FakeExecutor()
    engine = make_drafting_engine(small, large)
    request = make_request(40, 50)
    output = run_audited(engine, [request])[request.request_id]
    assert output.token_ids == run_alone(request).token_ids
    # The prompt, then 5 tokens per step of the large model, the last answer's apart.
    assert len(large.steps) <= 11
    assert sum(len(step.token_ids) for step in small.steps) <= 40 + 50 + 10


def test_draft_model_is_right_again_after_a_wrong_guess() -> None:
    """Keys and values of wrong guesses are overwritten: only where the models differ it errs."""
    engine = make_drafting_engine(NearlyAlike(), FakeExecutor())
    request = make_request(40, 200)
    run_audited(engine, [request])
    # Four of five places are guessed rightly; per five tokens one guess is wrong.
    assert engine.stats().acceptance_rate > 0.6
    assert engine.stats().num_accepted_tokens > 100


@pytest.mark.parametrize("num_right", range(4))
@pytest.mark.parametrize("num_new", [1, 2, 5, 20])
def test_draft_model_guesses_from_the_true_tokens_only(num_right: int, num_new: int) -> None:
    """However many tokens came since its last guess, it guesses as if it had never guessed."""

    def new_drafter() -> ModelDrafter:
        return ModelDrafter(
            FakeExecutor(), vocab_size=VOCAB_SIZE, max_draft_tokens=4,
            max_num_mixed_prefill_tokens=64,
        )  # fmt: skip

    engine = make_engine()
    engine.add(make_request(30, 100))
    (sequence,) = engine._scheduler
    drafter = new_drafter()
    (guess,) = drafter.propose([(sequence, 4)])
    assert len(guess) == 4
    wrong = [(token + 1) % VOCAB_SIZE for token in guess]
    sequence.token_ids += (guess[:num_right] + wrong[num_right:] + [3] * 20)[:num_new]
    assert drafter.propose([(sequence, 4)]) == new_drafter().propose([(sequence, 4)])
    drafter.audit()


def test_draft_model_follows_a_sliding_context() -> None:
    """When tokens are dropped it reads the rest anew, and is as right as before."""
    engine = make_drafting_engine(FakeExecutor(), FakeExecutor(), max_model_len=64)
    request = make_request(20, 200, overflow="slide")
    output = run_audited(engine, [request])[request.request_id]
    assert output.last.usage.num_dropped_tokens > 0
    assert engine.stats().acceptance_rate == 1.0


def test_draft_model_reads_a_long_prompt_in_chunks() -> None:
    """Nobody waits for a guess: until the prompt is read there is none."""
    small, large = FakeExecutor(max_num_batched_tokens=512), FakeExecutor()
    engine = make_drafting_engine(small, large, max_num_mixed_prefill_tokens=64)
    short, long = make_request(5, 60), make_request(400, 30)
    outputs = run_audited(engine, [short, long])
    for request in (short, long):
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids
    mixed = [step for step in small.steps if len(step.seq_lens) == 2]
    assert mixed
    assert all(len(step.token_ids) <= 64 for step in mixed)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_draft_model_a_failing_step_costs_speed_only(
    k: int, caplog: pytest.LogCaptureFixture
) -> None:
    """When the small model breaks, it is closed and the large one goes on alone."""
    caplog.set_level(logging.CRITICAL)
    small = FakeExecutor(raise_at={k})
    engine = make_drafting_engine(small, FakeExecutor())
    asked = [make_request(10 + i, 20) for i in range(4)]
    outputs = run_all(engine, asked)
    for request in asked:
        assert outputs[request.request_id].token_ids == run_alone(request).token_ids
    assert small.num_closes == 1


def test_draft_model_is_closed_with_the_engine() -> None:
    """Both models' memory is given back."""
    small = FakeExecutor()
    make_drafting_engine(small, FakeExecutor()).close()
    assert small.num_closes == 1


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_llm_with_a_draft_model_answers_as_without(tiny_model: Path, temperature: float) -> None:
    """The model as its own draft: right guesses, and the same text to the last bit."""
    params = SamplingParams(
        max_tokens=60, temperature=temperature, seed=4, logprobs=1, ignore_eos=True
    )
    with LLM(tiny_model, kv_cache_bytes=2**20) as llm:
        expected = llm.generate(["abba", "hello"], params)
    with LLM(tiny_model, kv_cache_bytes=2**20, draft_model=tiny_model) as llm:
        outputs = llm.generate(["abba", "hello"], params)
        assert llm.stats().num_draft_tokens > 0
        if temperature == 0:
            assert llm.stats().num_accepted_tokens > 0
    assert [(o.text, o.token_ids, o.logprobs) for o in outputs] == [
        (o.text, o.token_ids, o.logprobs) for o in expected
    ]


@pytest.mark.parametrize("way", ["ngram", "draft"])
def test_isolated_llm_speculates_too(
    tiny_model: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options reach a worker process, the draft model's path relative to here."""
    monkeypatch.chdir(tiny_model.parent)
    params = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)
    with LLM(tiny_model, kv_cache_bytes=2**20) as llm:
        expected = llm.generate("abababab", params)[0].token_ids
    options = {"ngram_speculation": True} if way == "ngram" else {"draft_model": tiny_model.name}
    with LLM(tiny_model, kv_cache_bytes=2**20, isolated=True, **options) as llm:
        assert llm.generate("abababab", params)[0].token_ids == expected
        assert llm.stats().num_draft_tokens > 0
        llm.audit()


def test_llm_refuses_a_draft_model_of_another_vocabulary(tiny_model: Path, tmp_path: Path) -> None:
    """Guesses are token ids; the first token that differs is named."""
    write_tiny_hf_model(tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    path.write_text(path.read_text().replace("<|im_start|>", "<|start|>"))
    with pytest.raises(RequestError, match=r"draft_model: .* token 258 .*<\|start\|>"):
        LLM(tiny_model, draft_model=tmp_path / "other")
