"""LLM: prompts in, outputs out."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.tiny_model import BOS, CONTEXT_LENGTH, IM_START, write_tiny_model
from quintet import (
    LLM,
    ContextLengthError,
    EngineError,
    ModelNotFoundError,
    Priority,
    RequestError,
    SamplingParams,
    Tokenizer,
)
from quintet.backends.base import Float32Array, StepInput
from quintet.backends.cpu import CPUExecutor

GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
ENDLESS = SamplingParams(max_tokens=None, temperature=0, ignore_eos=True)
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[LLM]:
    """The tiny model, loaded."""
    with LLM(path, num_threads=1) as llm:
        yield llm


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a step take so long that ENDLESS requests do not end by themselves in a test."""
    run = CPUExecutor.run

    def slow_run(executor: CPUExecutor, step: StepInput) -> Float32Array:
        time.sleep(0.02)
        return run(executor, step)

    monkeypatch.setattr(CPUExecutor, "run", slow_run)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for what another thread is to bring about; the test's timeout ends it."""
    while not condition():
        time.sleep(0.002)


def test_llm_generates_an_output_per_prompt(llm: LLM) -> None:
    """Texts and token ids may be mixed; outputs keep the order."""
    outputs = llm.generate(["Once upon a time", [1, 2, 3], "x"], GREEDY)
    assert [output.prompt_token_ids[:3] for output in outputs] == [
        (BOS, ord("O"), ord("n")),
        (1, 2, 3),
        (BOS, ord("x")),
    ]
    for output in outputs:
        assert len(output.token_ids) == 12
        assert output.text == llm.tokenizer.decode(output.token_ids)
        assert output.finish_reason == "length"
        assert output.logprobs is None
        assert output.usage.num_generated_tokens == 12
        assert output.usage.num_prompt_tokens == len(output.prompt_token_ids)


def test_llm_takes_one_prompt_without_a_list(llm: LLM) -> None:
    """A text, ids, or an array of ids is one prompt."""
    for prompt in ("ab", llm.tokenizer.encode("ab"), np.array(llm.tokenizer.encode("ab"))):
        (output,) = llm.generate(prompt, GREEDY)
        assert output.prompt_token_ids == tuple(llm.tokenizer.encode("ab"))
    assert llm.generate([], GREEDY) == []


def test_llm_reads_control_tokens_in_raw_prompts_only(llm: LLM) -> None:
    """A raw prompt may spell control tokens; a message cannot."""
    (output,) = llm.generate("<|im_start|>", GREEDY)
    assert output.prompt_token_ids == (BOS, IM_START)
    output = llm.chat([{"role": "user", "content": "<|im_start|>"}], GREEDY)
    assert output.prompt_token_ids.count(IM_START) == 2


def test_llm_gives_log_probabilities(llm: LLM) -> None:
    """One entry per token; greedily chosen tokens are their own best."""
    params = SamplingParams(max_tokens=8, temperature=0, logprobs=5, ignore_eos=True)
    (output,) = llm.generate("a", params)
    assert output.logprobs is not None
    assert [entry.token_id for entry in output.logprobs] == list(output.token_ids)
    for entry in output.logprobs:
        assert len(entry.top) == 5
        assert entry.top[0] == (entry.token_id, entry.logprob)
        assert entry.logprob < 0


def test_llm_takes_params_for_each_prompt(llm: LLM) -> None:
    """Params may differ; a wrong number of them is refused."""
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (2, 5)]
    outputs = llm.generate(["a", "b"], params)
    assert [len(output.token_ids) for output in outputs] == [2, 5]
    with pytest.raises(RequestError, match="each of 3 prompts, found 2"):
        llm.generate(["a", "b", "c"], params)


def test_llm_streams_what_generate_gives(llm: LLM) -> None:
    """The chunks of a stream add up to the whole output."""
    (whole,) = llm.generate("Tell me a story", GREEDY)
    chunks = list(llm.stream("Tell me a story", GREEDY))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert tuple(chunk.token_id for chunk in chunks) == whole.token_ids
    assert [chunk.finish_reason for chunk in chunks] == [None] * 11 + ["length"]


def test_llm_chats_through_the_models_template(llm: LLM) -> None:
    """A chat is the rendered conversation, continued; its stream is the same."""
    rendered = "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    expected = llm.tokenizer.encode(rendered, add_special=False, parse_special=True)
    output = llm.chat(HELLO, GREEDY)
    assert output.prompt_token_ids == tuple(expected)
    assert "".join(chunk.text for chunk in llm.stream_chat(HELLO, GREEDY)) == output.text


def test_llm_hands_tools_and_thinking_to_the_template(llm: LLM) -> None:
    """What the template can read reaches it."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    output = llm.chat(HELLO, GREEDY, tools=tools, enable_thinking=False)
    prompt = llm.tokenizer.decode(output.prompt_token_ids, skip_special=False)
    assert prompt.startswith("<|im_start|>tools1")
    assert prompt.endswith("<think></think>")


def test_llm_refuses_prompts_before_computing_anything(llm: LLM) -> None:
    """One bad prompt refuses the call, with its numbers."""
    before = llm.stats().num_requests
    with pytest.raises(ContextLengthError, match=f"holds {CONTEXT_LENGTH}"):
        llm.generate(["fine", [1] * CONTEXT_LENGTH], GREEDY)
    with pytest.raises(ContextLengthError):
        llm.stream([1] * CONTEXT_LENGTH)
    for prompt in ([[]], ["a", None], [1.5], [["a"]], [[10**6]]):
        with pytest.raises(RequestError):
            llm.generate(prompt, GREEDY)
    assert llm.stats().num_requests == before


def test_llm_gives_more_prompts_than_its_queue_holds_their_turn(path: Path) -> None:
    """generate waits for room instead of failing."""
    prompts = [[i % 250, i // 250] for i in range(300)]
    with LLM(path, max_num_seqs=4, max_queue=3, num_threads=1) as llm:
        params = SamplingParams(max_tokens=2, temperature=0)
        assert [o.prompt_token_ids for o in llm.generate(prompts, params)] == [
            tuple(prompt) for prompt in prompts
        ]


def test_llm_is_repeatable_with_a_seed(path: Path) -> None:
    """The engine's seed fixes the answers of requests that bring none."""
    answers = []
    for seed in (1, 1, 2):
        with LLM(path, seed=seed, num_threads=1) as llm:
            outputs = llm.generate(["a", "a"], SamplingParams(max_tokens=10))
            answers.append([output.token_ids for output in outputs])
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.usefixtures("slow_steps")
@pytest.mark.parametrize("leave", ["break", "close", "drop"])
def test_llm_aborts_a_stream_left_behind(path: Path, leave: str) -> None:
    """Leaving the loop, closing or dropping the iterator stops the work."""
    with LLM(path, num_threads=1) as llm:
        stream = llm.stream("a", ENDLESS)
        next(stream)
        if leave == "close":
            stream.close()
        if leave == "break":
            for _ in llm.stream("b", ENDLESS):
                break
        del stream
        gc.collect()
        wait_until(lambda: llm.stats().num_aborted == 1 + (leave == "break"))
        assert llm.stats().num_used_blocks == 0


def test_llm_submits_a_stream_when_it_is_first_read(path: Path) -> None:
    """A stream that is never read costs nothing."""
    with LLM(path, num_threads=1) as llm:
        stream = llm.stream("a", ENDLESS)
        del stream
        llm.generate("b", GREEDY)
        assert llm.stats().num_requests == 1


def test_llm_serves_threads_at_once(llm: LLM) -> None:
    """Calls from several threads get the answers they would get alone."""
    prompts = [f"prompt {i}" for i in range(8)]
    expected = [llm.generate(prompt, GREEDY)[0].token_ids for prompt in prompts]
    found: dict[str, tuple[int, ...]] = {}

    def ask(prompt: str) -> None:
        found[prompt] = llm.generate(prompt, GREEDY)[0].token_ids

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[prompt] for prompt in prompts] == expected


@pytest.mark.usefixtures("slow_steps")
def test_llm_close_ends_streams_and_refuses_more(path: Path) -> None:
    """After close, readers and callers get EngineError; closing again is fine."""
    llm = LLM(path, num_threads=1)
    stream = llm.stream("a", ENDLESS)
    next(stream)
    assert not llm.is_closed
    assert llm.state == "ready"
    llm.close()
    llm.close()
    assert llm.is_closed
    assert llm.state == "closed"
    with pytest.raises(EngineError, match="closed"):
        list(stream)
    with pytest.raises(EngineError, match="closed"):
        llm.generate("a")


def test_llm_frees_the_model_when_it_is_dropped(path: Path) -> None:
    """An LLM nobody refers to any more ends its thread."""
    llm = LLM(path, num_threads=1)
    thread = llm._runtime.client._thread
    del llm
    gc.collect()
    assert not thread.is_alive()


def test_llm_lets_a_program_end_without_close(path: Path) -> None:
    """A script that forgets close, even amid a stream, still exits cleanly."""
    code = f"""
from quintet import LLM, SamplingParams
llm = LLM({str(path)!r}, num_threads=1)
stream = llm.stream("a", SamplingParams(max_tokens=None, ignore_eos=True))
print(next(stream).token_id)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().isdigit()


def test_llm_says_which_models_there_are(tmp_path: Path) -> None:
    """An unknown model is an error that helps."""
    with pytest.raises(ModelNotFoundError, match="models by name"):
        LLM(tmp_path / "none.gguf")


def test_llm_limits_and_priorities(llm: LLM) -> None:
    """The limits are there to be read, and a priority is accepted wherever a prompt is."""
    assert llm.limits.max_model_len == CONTEXT_LENGTH
    assert llm.generate("a", GREEDY, priority=Priority.HIGH)[0].token_ids
    assert list(llm.stream("a", GREEDY, priority=Priority.LOW))
    with pytest.raises(RequestError, match="priority: expected LOW, NORMAL or HIGH, found 7"):
        llm.generate("a", GREEDY, priority=7)


def test_tokenizer_reads_the_same_file(path: Path, llm: LLM) -> None:
    """The public Tokenizer can be had without a model."""
    assert Tokenizer.from_file(path).encode("cab", add_special=False) == [ord("c"), 256]


def test_llm_demo_answers_sixteen_together_as_alone() -> None:
    """The packaged model, by its name: answers do not depend on who else is asking."""
    prompts = [f"Count to {i}: one, two" + ", three" * i for i in range(16)]
    params = SamplingParams(max_tokens=16, temperature=0.7, seed=3, logprobs=0, ignore_eos=True)
    with LLM("demo", enable_prefix_cache=False) as llm:
        alone = [llm.generate(prompt, params)[0] for prompt in prompts]
    with LLM("demo") as llm:
        together = llm.generate(prompts, params)
    assert [(o.token_ids, o.logprobs) for o in together] == [
        (o.token_ids, o.logprobs) for o in alone
    ]


def test_llm_gives_several_answers(llm: LLM) -> None:
    """n answers to each prompt, of which the first can be read without an index."""
    params = SamplingParams(max_tokens=6, n=3, seed=5, ignore_eos=True)
    outputs = llm.generate(["Once upon", "a time"], params)
    for output in outputs:
        assert [choice.index for choice in output.choices] == [0, 1, 2]
        assert output.text == output.choices[0].text
        assert len({choice.token_ids for choice in output.choices}) == 3
    second = SamplingParams(max_tokens=6, seed=6, ignore_eos=True)
    assert llm.generate("a time", second)[0].token_ids == outputs[1].choices[1].token_ids
    chunks = list(llm.stream("a time", params))
    assert {chunk.index for chunk in chunks} == {0, 1, 2}
    assert [chunk.is_last for chunk in chunks].index(True) == len(chunks) - 1
    for choice in outputs[1].choices:
        streamed = [t for c in chunks if c.index == choice.index for t in c.token_ids]
        assert tuple(streamed) == choice.token_ids


def test_llm_scores_and_echoes_the_prompt(llm: LLM) -> None:
    """What a prompt's tokens get is what they would have got when generated."""
    generated = SamplingParams(max_tokens=5, temperature=0, logprobs=2, ignore_eos=True)
    (output,) = llm.generate("Hello", generated)
    prompt = [*output.prompt_token_ids, *output.token_ids]
    scored = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=2, echo=True)
    (again,) = llm.generate([prompt], scored)
    assert again.prompt_logprobs is not None
    assert again.prompt_logprobs[0] is None
    assert again.prompt_logprobs[-5:] == output.logprobs
    assert again.text.startswith(llm.tokenizer.decode(prompt))


def test_llm_dry_minds_the_breakers(llm: LLM) -> None:
    """Breakers are text: the same repetition is free where one lies in its way."""
    ways = {"max_tokens": 1, "temperature": 0, "dry_multiplier": 100.0, "logprobs": 0}
    bias = {ord("d"): 20.0}
    prompt = [*b"x abcd x abc"]
    for breakers, is_free in (("|", False), ("b", True), ("x", False)):
        params = SamplingParams(
            **ways,  # type: ignore[arg-type]
            logit_bias=bias,
            dry_sequence_breakers=breakers,
        )
        (output,) = llm.generate([prompt], params)
        assert (output.token_ids == (ord("d"),)) == is_free


@pytest.mark.parametrize("opened", ["<think>\n", ""])
def test_a_budget_ends_a_thought(opened: str) -> None:
    """Where the template opens the thought, and where the model may; the answer follows it."""
    with LLM("demo", num_threads=1) as thinker:
        thinker.tokenizer.use_chat_template(
            "{% for m in messages %}{{ m.content }}{% endfor %}" + opened + "{# </think> #}"
        )
        # The demo model does not think by itself.
        bias = {thinker.tokenizer.token_to_id("<think>"): 0.0 if opened else 100.0}
        params = SamplingParams(
            max_tokens=20, temperature=0, ignore_eos=True, logit_bias=bias, min_tokens=20
        )
        hello = [{"role": "user", "content": "Hello!"}]
        for budget in (0, 3):
            output = thinker.chat(hello, params, max_thinking_tokens=budget)
            marks = 1 if opened else 2
            assert output.usage.num_reasoning_tokens == budget + marks
            assert len(output.token_ids) == 20
            assert (not output.reasoning) == (budget == 0)
        assert thinker.chat(hello, params).usage.num_reasoning_tokens == 20
