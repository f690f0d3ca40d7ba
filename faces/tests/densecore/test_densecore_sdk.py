"""`DenseCore`, method by method."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import densecore
from densecore import DenseCore, GenerationConfig
from densecore.exceptions import (
    DenseCoreError,
    InferenceError,
    InvalidConfigError,
    ModelLoadError,
    TimeoutError,
)
from densecore.hub import pretrained_model
from quintet import LLM, SamplingParams
from quintet.hub.resolve import resolve

PROMPT = "The capital of France"
STORY = "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"  # a long answer
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def greedy(max_tokens: int = 12) -> SamplingParams:
    """What a greedy GenerationConfig stands for."""
    return SamplingParams(
        max_tokens=max_tokens, temperature=0, top_p=0.95, top_k=40, repetition_penalty=1.1
    )


def test_names_are_those_of_the_reference():
    """All that the reference imports is there, with the defaults it prints."""
    signature = inspect.signature(DenseCore)
    assert list(signature.parameters)[:3] == ["main_model_path", "threads", "hf_repo_id"]
    assert signature.parameters["threads"].default == 0
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(DenseCore.generate).parameters.items()
    }
    assert defaults == {
        "self": inspect.Parameter.empty,
        "prompt": inspect.Parameter.empty,
        "max_tokens": 256,
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": 40,
        "repetition_penalty": 1.1,
        "stop_sequences": None,
        "config": None,
    }
    assert GenerationConfig() == GenerationConfig(256, 0.8, 0.95, 40, 1.1, None, False)
    assert list(inspect.signature(DenseCore.from_pretrained).parameters)[:4] == [
        "repo_id",
        "filename",
        "cache_dir",
        "threads",
    ]
    for name in densecore.__all__:
        assert getattr(densecore, name) is not None
    with pytest.raises(AttributeError):
        densecore.nothing  # noqa: B018


def test_generate_is_quintets_answer(model: DenseCore):
    """The same text as from Quintet itself, with the same parameters."""
    with LLM("demo") as llm:
        expected = llm.generate(PROMPT, greedy())[0].text
    assert model.generate(PROMPT, max_tokens=12, temperature=0) == expected
    config = GenerationConfig(max_tokens=12, temperature=0)
    assert model.generate(PROMPT, config=config) == expected


def test_chat_is_quintets_answer(model: DenseCore):
    """The same answer as from Quintet itself."""
    with LLM("demo") as llm:
        expected = llm.chat(QUESTION, greedy(40)).text
    assert model.chat(QUESTION, max_tokens=40, temperature=0) == expected
    assert "Paris" in expected


def test_streams_are_the_answer_in_pieces(model: DenseCore):
    """Both streams give what `generate` does, in several pieces, again and again."""

    async def read() -> list[str]:
        return [text async for text in model.stream_async(PROMPT, max_tokens=12, temperature=0)]

    expected = model.generate(PROMPT, max_tokens=12, temperature=0)
    pieces = list(model.stream(PROMPT, max_tokens=12, temperature=0))
    assert "".join(pieces) == expected
    assert len(pieces) > 2
    assert asyncio.run(read()) == pieces
    assert asyncio.run(read()) == pieces  # in another event loop


def test_a_stream_left_ends_its_request(model: DenseCore):
    """Nothing runs on when nobody reads."""

    async def leave() -> None:
        stream = model.stream_async(STORY, max_tokens=2000)
        await anext(aiter(stream))
        await stream.aclose()

    stream = model.stream(STORY, max_tokens=2000)
    next(stream)
    stream.close()
    asyncio.run(leave())
    model.generate("Hello", max_tokens=1)  # after which what was aborted has been counted
    metrics = model.get_metrics()
    assert metrics["active_requests"] == metrics["pending_requests"] == 0
    assert metrics["cancelled_requests"] >= 2


def test_stop_sequences_end_the_answer(model: DenseCore):
    """The answer ends before them."""
    text = model.generate(PROMPT, max_tokens=12, temperature=0)
    stop = text.split()[1][0]
    stopped = model.generate(PROMPT, max_tokens=12, temperature=0, stop_sequences=[stop])
    assert stopped == text.split(stop)[0]


def test_json_mode_gives_json(model: DenseCore):
    """An answer that ends by itself is a JSON object."""
    config = GenerationConfig(temperature=0, max_tokens=60, json_mode=True)
    text = model.chat([{"role": "user", "content": "Give me a person as JSON."}], config=config)
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -1},
        {"top_p": 2},
        {"top_k": -5},
        {"repetition_penalty": 0},
        {"stop_sequences": [1]},
    ],
)
def test_wrong_parameters_are_refused(model: DenseCore, wrong: dict[str, object]):
    """By the config, and by each call."""
    for call in (
        lambda: GenerationConfig(**wrong),
        lambda: model.generate("x", **wrong),
        lambda: model.stream("x", **wrong),
        lambda: model.stream_async("x", **wrong),
        lambda: model.chat(QUESTION, **wrong),
    ):
        with pytest.raises(InvalidConfigError, match=next(iter(wrong))):
            call()


def test_unknown_parameters_are_refused(model: DenseCore):
    """A misspelt name is no silence."""
    with pytest.raises(TypeError):
        model.chat(QUESTION, temprature=1)


def test_embeddings_are_quintets(model: DenseCore):
    """Shape, length and values, alone and in a batch."""
    with LLM("demo") as llm:
        expected = llm.embed(["one", "two words"], pooling="mean").embeddings
    found = model.embed_batch(["one", "two words"])
    assert found.shape == (2, 256)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    assert np.array_equal(model.embed("one"), expected[0])
    assert np.linalg.norm(found[0]) == pytest.approx(1)
    raw = model.embed("one", pooling="last", normalize=False)
    assert np.linalg.norm(raw) != pytest.approx(1, abs=0.01)
    assert model.embed_batch([]).shape == (0, 256)
    for pooling in ("cls", "max"):
        assert not np.array_equal(model.embed("two words", pooling=pooling), expected[1])
    with pytest.raises(InvalidConfigError, match="pooling"):
        model.embed("one", pooling="rank")
    with pytest.raises(InvalidConfigError, match="texts"):
        model.embed_batch("one")


def test_tokens_there_and_back(model: DenseCore):
    """Text to ids, without special tokens, and back."""
    ids = model.tokenize("Hello, world!")
    assert model.detokenize(ids) == "Hello, world!"
    with LLM("demo") as llm:
        assert ids == llm.tokenizer.encode("Hello, world!", add_special=False)
    assert model.detokenize([*ids, 10**6, *ids]) == "Hello, world!\ufffdHello, world!"
    for wrong in ([-1], ["1"]):
        with pytest.raises(InvalidConfigError):
            model.detokenize(wrong)


def test_metrics_count(model: DenseCore):
    """What is generated is counted."""
    before = model.get_metrics()
    model.generate(PROMPT, max_tokens=3, temperature=0)
    after = model.get_metrics()
    assert after["total_tokens_generated"] == before["total_tokens_generated"] + 3
    assert after["completed_requests"] == before["completed_requests"] + 1
    assert after["tokens_per_second"] > 0
    assert after["active_requests"] == 0
    assert 0 <= after["kv_cache_usage_percent"] <= 100
    assert 0 < after["p50_time_to_first_token"] <= after["p99_time_to_first_token"]


def test_what_does_not_fit_is_an_inference_error(model: DenseCore):
    """A prompt longer than the context."""
    with pytest.raises(InferenceError, match="context holds 2048"):
        model.generate("a" * 100_000)
    with pytest.raises(InvalidConfigError, match="prompt"):
        model.generate(None)


def test_a_request_may_not_take_forever():
    """`timeout` is an error with a name of its own, and Python's as well."""
    with DenseCore("demo", timeout=1e-6) as hurried:
        for call in (
            lambda: hurried.generate("Hello"),
            lambda: hurried.chat(QUESTION),
            lambda: list(hurried.stream("Hello")),
        ):
            with pytest.raises(TimeoutError):
                call()
    assert issubclass(TimeoutError, builtins.TimeoutError)
    with pytest.raises(InvalidConfigError):
        DenseCore("demo", timeout=0)


def test_no_such_model(tmp_path: Path):
    """A missing file, a broken one, and options that make no sense."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(20))
    for path in ("nonexistent.gguf", str(broken)):
        with pytest.raises(ModelLoadError, match="gguf"):
            DenseCore(path)
    with pytest.raises(InvalidConfigError, match="threads"):
        DenseCore("demo", threads=-1)
    for error in (ModelLoadError, InferenceError, InvalidConfigError, TimeoutError):
        assert issubclass(error, DenseCoreError)


def test_closing_ends_it():
    """Both kinds of calls fail after `close`, which may be called again."""
    with DenseCore("demo", 1, "Qwen/Qwen3-0.6B") as short:
        assert short.hf_repo_id == "Qwen/Qwen3-0.6B"

        async def read() -> None:
            async for _ in short.stream_async("Hello", max_tokens=2):
                pass

        asyncio.run(read())
    short.close()
    with pytest.raises(InferenceError, match="closed"):
        short.generate("Hello")
    with pytest.raises(InferenceError, match="closed"):
        short.stream_async("Hello")


def test_a_draft_model_changes_nothing_but_the_speed(model: DenseCore):
    """The answer is the same, and guesses were checked."""
    expected = model.generate(PROMPT, max_tokens=20, temperature=0)
    with DenseCore("demo", draft_model_path="demo") as drafted:
        assert drafted.generate(PROMPT, max_tokens=20, temperature=0) == expected
        assert drafted._llm.stats().num_draft_tokens > 0


def test_two_of_one_file_share_it(model: DenseCore):
    """A program that loads a model twice has it once."""
    with DenseCore("demo") as other:
        before = model.get_metrics()["total_requests"]
        other.generate("Hello", max_tokens=1)
        assert model.get_metrics()["total_requests"] == before + 1
    model.generate("Hello", max_tokens=1)  # closing one leaves the other


def test_from_pretrained_finds_aliases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: DenseCore
):
    """A repository, and a file of one, may be mapped to what there is."""
    names = tmp_path / "aliases.json"
    names.write_text(json.dumps({"a/b-GGUF": "demo", "c/d/e.Q4_K_M.gguf": "demo"}))
    monkeypatch.setenv("QUINTET_ALIASES", str(names))
    expected = model.generate(PROMPT, max_tokens=5, temperature=0)
    with DenseCore.from_pretrained("a/b-GGUF") as one:
        assert one.generate(PROMPT, max_tokens=5, temperature=0) == expected
        assert one.hf_repo_id == "a/b-GGUF"
    with DenseCore.from_pretrained(
        "c/d", filename="e.Q4_K_M.gguf", threads=1, draft_repo_id="a/b-GGUF"
    ) as two:
        assert two.generate(PROMPT, max_tokens=5, temperature=0) == expected


def test_from_pretrained_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is not here is pulled into `cache_dir`; what is there is not pulled again."""
    from quintet.hub import store as stores
    from quintet.hub.manifest import Manifest

    pulled = []

    def pull(name: str, *, store: stores.Store) -> list[None]:
        pulled.append(name)
        path = resolve("demo")
        store.save(
            Manifest(
                name=name,
                path=path,
                digest="0" * 64,
                size_bytes=path.stat().st_size,
                modified_at=0.0,
                source=name,
            )
        )
        return []

    monkeypatch.setattr("densecore.hub.pull", pull)
    for _ in range(2):
        found = pretrained_model("user/repo", "m.Q8_0.gguf", tmp_path)
        assert Path(found) == resolve("demo")
    assert pulled == ["hf.co/user/repo:m.Q8_0.gguf"]
    assert list((tmp_path / "manifests").iterdir())


def test_from_pretrained_refuses_what_is_no_repository(tmp_path: Path):
    """Before anything is asked of a host."""
    with pytest.raises(InvalidConfigError):
        DenseCore.from_pretrained("../etc", cache_dir=tmp_path)
    with pytest.raises(ModelLoadError, match="no model"):
        DenseCore.from_pretrained("a/b/c", cache_dir=tmp_path)


def test_importing_it_is_cheap():
    """It loads none of what it is made of."""
    code = "import sys, densecore; print([m for m in sys.modules if m in ('numpy', 'cffi')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
