"""nano_qwen3_serving.LLM against Quintet's own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

import quintet
from nano_qwen3_serving import LLM, RequestPriority, SamplingParams, _devices
from nano_qwen3_serving.exceptions import (
    GenerationError,
    InvalidParametersError,
    ModelLoadError,
    QueueFullError,
)

GREEDY = SamplingParams.greedy(8)
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def llm() -> Iterator[LLM]:
    with LLM(device="cpu") as model:
        yield model


@pytest.fixture(scope="module")
def peer() -> Iterator[quintet.LLM]:
    with quintet.LLM("demo", shared=True) as model:
        yield model


def test_generate_gives_what_quintet_gives(llm: LLM, peer: quintet.LLM):
    """generate(prompts, sampling_params, priority): a dictionary per prompt, in order."""
    prompts = ["Hello", "Once upon a time"]
    results = llm.generate(prompts=prompts, sampling_params=GREEDY, priority=RequestPriority.HIGH)
    outputs = peer.generate(prompts, quintet.SamplingParams.greedy(8))
    assert [result["generated_text"] for result in results] == [each.text for each in outputs]
    assert [result["prompt"] for result in results] == prompts
    for result, output in zip(results, outputs, strict=True):
        usage = output.usage
        assert result["tokens_generated"] == usage.num_generated_tokens
        assert result["total_tokens"] == usage.num_prompt_tokens + usage.num_generated_tokens
    assert len({result["request_id"] for result in results}) == 2


def test_block_indices_are_those_the_engine_used(llm: LLM):
    """A block for each 16 tokens computed, each its own; what a prompt shares, it shares."""
    prompt = "word " * 60
    first, second = (llm.generate_single(prompt, GREEDY) for _ in range(2))
    for result in (first, second):
        # The last token is never computed.
        assert len(result["block_indices"]) == -(-(result["total_tokens"] - 1) // 16)
        assert len(set(result["block_indices"])) == len(result["block_indices"])
    full = (first["total_tokens"] - first["tokens_generated"] - 1) // 16
    assert first["block_indices"][:full] == second["block_indices"][:full]
    apart = llm.generate_single(prompt, SamplingParams.greedy(8))
    assert apart["generated_text"] == first["generated_text"]


def test_generate_single_is_one_of_generate(llm: LLM):
    """generate_single(prompt, sampling_params, priority)."""
    single = llm.generate_single(
        prompt="Hello", sampling_params=GREEDY, priority=RequestPriority.LOW
    )
    (listed,) = llm.generate("Hello", GREEDY)
    assert single["generated_text"] == listed["generated_text"]


def test_presets(llm: LLM):
    """generate_greedy, generate_creative and generate_balanced take prompts and max_tokens."""
    assert (
        llm.generate_greedy(prompts=["Hello"], max_tokens=8)[0]["generated_text"]
        == (llm.generate_single("Hello", GREEDY)["generated_text"])
    )
    assert len(llm.generate_creative(prompts=["a", "b"], max_tokens=2)) == 2
    (result,) = llm.generate_balanced(prompts="Hello", max_tokens=3)
    assert 1 <= result["tokens_generated"] <= 3


def test_streams_add_up(llm: LLM):
    """generate_stream(prompt, sampling_params, priority): one per token; text accumulates."""
    chunks = list(
        llm.generate_stream(
            prompt="Once upon", sampling_params=GREEDY, priority=RequestPriority.NORMAL
        )
    )
    whole = llm.generate_single("Once upon", GREEDY)
    assert "".join(chunk["token"] for chunk in chunks) == whole["generated_text"]
    assert chunks[-1]["text"] == whole["generated_text"]
    assert [chunk["tokens_generated"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [chunk["finished"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len({chunk["request_id"] for chunk in chunks}) == 1
    assert all(isinstance(chunk["token_id"], int) for chunk in chunks)


def test_a_stream_left_behind_ends_its_request(llm: LLM):
    """Leaving the loop frees its place in the queue."""
    for _ in llm.generate_stream("Once upon", SamplingParams.greedy(200)):
        break
    assert llm.get_stats()["active_requests"] == 0


def test_chat_uses_the_models_template(llm: LLM, peer: quintet.LLM):
    """chat(messages, sampling_params, system_prompt), and chat_stream the same."""
    system = {"role": "system", "content": "Be kind."}
    expected = peer.chat([system, *HELLO], quintet.SamplingParams.greedy(20)).text
    params = SamplingParams.greedy(20)
    result = llm.chat(messages=HELLO, sampling_params=params, system_prompt="Be kind.")
    assert result["generated_text"] == expected
    assert "Be kind." in result["prompt"]
    chunks = llm.chat_stream(messages=HELLO, sampling_params=params, system_prompt="Be kind.")
    assert "".join(chunk["token"] for chunk in chunks) == expected
    own = llm.chat([system, *HELLO], params)
    assert own["prompt"] == result["prompt"], "messages that bring a system prompt keep it"


def test_stats_count_and_clear(llm: LLM):
    """get_stats counts what was served, clear_stats begins anew."""
    results = [llm.generate_single("word " * 40, GREEDY) for _ in range(2)]
    stats = llm.get_stats()
    assert stats["requests_served"] == 2
    assert stats["total_tokens_generated"] == sum(each["tokens_generated"] for each in results)
    assert stats["average_response_time"] > 0
    assert 0 < stats["cache_hit_rate"] < 1, "the second prompt was in the cache"
    assert stats["memory_usage"]["cached"] > 0
    assert stats["queue_length"] == 0
    llm.clear_stats()
    assert llm.get_stats()["requests_served"] == 0


def test_model_info(llm: LLM):
    """get_model_info says where the model really runs."""
    info = llm.get_model_info()
    assert info == {
        "model_name": "Qwen/Qwen3-0.6B",
        "device": "cpu",
        "dtype": "float16",
        "max_seq_length": 2048,  # of the model, which has no more
        "vocab_size": 2048,
        "num_parameters": info["num_parameters"],
    }
    assert info["num_parameters"] > 4_000_000


def test_shutdown_ends_it():
    """shutdown is idempotent; what comes after is refused."""
    llm = LLM(device="cpu")
    llm.shutdown()
    llm.shutdown()
    with pytest.raises(GenerationError):
        llm.generate("Hello")


def test_absent_devices_warn_once(caplog: pytest.LogCaptureFixture):
    """LLM(device="mps") runs on the CPU and says so, once in a process."""
    _devices._warned.clear()
    with caplog.at_level(logging.WARNING, "nano_qwen3_serving"):
        for device in ("mps", "mps", "cuda", "cpu", "auto"):
            with LLM(model_name="demo", device=device) as llm:
                assert llm.get_model_info()["device"] == "cpu"
    assert [record.args[0] for record in caplog.records if record.args] == ["mps", "cuda"]
    with pytest.raises(InvalidParametersError):
        LLM(device="tpu")


def test_sizes_bound_requests():
    """LLM(num_blocks, block_size, max_seq_length, dtype) are what the engine gets."""
    with LLM(
        model_name="demo",
        device="cpu",
        dtype="float32",
        num_blocks=4,
        block_size=32,
        max_seq_length=20,
    ) as llm:
        result = llm.generate_single("Once upon a time", SamplingParams.greedy(100))
        assert result["total_tokens"] == 20
        assert llm.get_model_info()["max_seq_length"] == 20
        assert max(result["block_indices"]) < 8, "4 blocks of 32 tokens are 8 of 16"
        with pytest.raises(InvalidParametersError, match="20 tokens"):
            llm.generate("word " * 30)


def test_the_queue_has_an_end():
    """LLM(max_queue_size=2) refuses a third request, and takes one again afterwards."""
    with LLM(device="cpu", max_queue_size=2) as llm:
        with pytest.raises(QueueFullError):
            llm.generate(["a", "b", "c"])
        assert len(llm.generate(["a", "b"], GREEDY)) == 2


@pytest.mark.parametrize(
    "options",
    [{"dtype": "int3"}, {"num_blocks": 0}, {"max_seq_length": 1}, {"block_size": "16"}],
)
def test_options_are_checked(options: dict):
    """What makes no sense is refused before anything is loaded."""
    with pytest.raises(InvalidParametersError):
        LLM(model_name="no such model", **options)


def test_models_that_are_not_there():
    """ModelLoadError, and how to get one."""
    with pytest.raises(ModelLoadError, match="no such"):
        LLM("no/such-model")


def test_prompts_are_checked(llm: LLM):
    """InvalidParametersError is a ValueError too."""
    for wrong in ([3], [None], [""], 5, None):
        with pytest.raises(ValueError, match="prompt"):
            llm.generate(wrong)
    with pytest.raises(InvalidParametersError, match="priority"):
        llm.generate("Hello", GREEDY, priority=2)
    assert llm.get_stats()["active_requests"] == 0


def test_threads_share_the_model(llm: LLM):
    """The same answers from several threads at once."""
    expected = llm.generate_single("Once upon", GREEDY)["generated_text"]
    found: list[str] = []

    def ask() -> None:
        found.append(llm.generate_single("Once upon", GREEDY)["generated_text"])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 6
