"""Engines, sessions, channels and samplers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import queue
import subprocess
import sys

import numpy as np
import pytest

import quintet
import woolly
from quintet.sampling.params import SamplingParams
from quintet.sampling.sampler import RowSampler
from woolly import (
    CacheConfig,
    DefaultSampler,
    Engine,
    EngineConfig,
    EngineConfigBuilder,
    GenerationFailed,
    InvalidRequest,
    MirostatSampler,
    ModelNotFound,
    ModelNotLoaded,
    OutOfMemory,
    Sampler,
    Session,
    channel,
)
from woolly.errors import WoollyError, translated
from woolly.mpsc import ChannelClosed

PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


class Constant:
    """A sampler of a user's: always the same token."""

    def __init__(self, token_id: int) -> None:
        self.token_id = token_id
        self.calls: list[tuple[tuple[int, ...], float, float, int]] = []

    def sample(self, logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> int:
        self.calls.append((logits.shape, temperature, top_p, top_k))
        return self.token_id


def test_the_builder_sets_each_thing():
    """Every method of the builder is a field of the configuration; the default is the default."""
    builder = EngineConfig.builder()
    assert isinstance(builder, EngineConfigBuilder)
    config = (
        builder.max_batch_size(2)
        .max_sequence_length(512)
        .enable_gpu(False)
        .num_threads(1)
        .enable_mmap(False)
        .cache_size(2**20)
        .build()
    )
    assert config == EngineConfig(2, 512, False, 1, False, CacheConfig(size=2**20))
    assert EngineConfig().mmap_enabled
    assert not config.mmap_enabled
    assert EngineConfig.default() == EngineConfig() == EngineConfig.builder().build()
    for wrong in ({"max_batch_size": 0}, {"max_sequence_length": 1}, {"num_threads": "two"}):
        with pytest.raises(InvalidRequest, match=next(iter(wrong))):
            EngineConfig(**wrong)
    with pytest.raises(InvalidRequest):
        EngineConfig.builder().cache_size(0)


def test_a_configured_engine_runs():
    """All settings together: few sequences, short context, one thread, no mapping, small cache."""
    config = EngineConfig(2, 128, False, 1, False, CacheConfig(enabled=False, size=2**20))
    with Engine(config) as engine:
        engine.load_model("demo")
        assert "Paris" in asyncio.run(engine.create_session().generate(PROMPT, 16, 0.0, 0.9))
        assert engine.stats().cached_tokens == 0


def test_what_an_engine_refuses():
    """No model, a missing one, a broken one, one that does not fit; stats are zeros."""
    engine = Engine(EngineConfig())
    assert engine.current_model_name() is None
    assert engine.stats() == woolly.EngineStats()
    for call in (engine.create_session, engine.unload_model):
        with pytest.raises(ModelNotLoaded):
            call()
    with pytest.raises(ModelNotFound, match="no/such"):
        engine.load_model("no/such.gguf")
    tiny = Engine(EngineConfig(cache_config=CacheConfig(size=1), max_sequence_length=64))
    with pytest.raises(OutOfMemory) as caught:
        tiny.load_model("demo")
    assert caught.value.needed > caught.value.available == 1


def test_generation_as_quintets(engine: Engine):
    """The text is that of quintet.LLM for the same prompt and parameters."""
    text = asyncio.run(engine.create_session().generate(PROMPT, 16, 0.0, 0.9))
    with quintet.LLM("demo") as llm:
        (output,) = llm.generate(PROMPT, SamplingParams.greedy(16))
    assert text == output.text
    assert "Paris" in text


def test_a_session_goes_on(engine: Engine):
    """A prompt follows what was said; clear_context forgets it; the counters count."""

    async def main() -> None:
        session = engine.create_session()
        assert isinstance(session, Session)
        await session.generate(
            "<|im_start|>user\nMy name is Alice<|im_end|>\n<|im_start|>assistant\n", 20, 0.0, 1.0
        )
        question = (
            "<|im_end|>\n<|im_start|>user\nWhat is my name?<|im_end|>\n<|im_start|>assistant\n"
        )
        assert "Alice" in await session.generate(question, 20, 0.0, 1.0)
        stats = session.stats()
        assert (stats.total_requests, stats.finish_reason) == (2, "stop")
        assert stats.context_tokens > 20
        assert stats.tokens_per_second > 0
        session.clear_context()
        assert session.stats().context_tokens == 0
        assert "Alice" not in await session.generate(question, 20, 0.0, 1.0)

    asyncio.run(main())


def test_the_oldest_text_goes_where_room_is_short():
    """A session may go on for ever; only a prompt that is too long by itself is refused."""

    async def main(engine: Engine) -> None:
        session = engine.create_session(Constant(100))
        for _ in range(6):
            await session.generate("one two three", 40, 1.0, 1.0)
            assert session.stats().context_tokens <= 128
        with pytest.raises(InvalidRequest, match="128"):
            await session.generate("word " * 200, 10, 0.0, 1.0)
        await session.generate("one", 10, 0.0, 1.0)

    with Engine(EngineConfig(max_sequence_length=128)) as engine:
        engine.load_model("demo")
        asyncio.run(main(engine))


def test_streaming_into_anything(engine: Engine):
    """A channel, both kinds of queue, an object with send, a function: the whole in pieces."""

    class Socket:
        def __init__(self) -> None:
            self.sent: list[str] = []
            self.is_closed = False

        async def send(self, token: str) -> None:
            self.sent.append(token)

        async def close(self) -> None:
            self.is_closed = True

    async def main() -> None:
        whole = await engine.create_session().generate(PROMPT, 16, 0.0, 0.9)

        async def stream(tx: object) -> None:
            await engine.create_session().generate_stream(PROMPT, 16, 0.0, 0.9, tx)

        tx, rx = channel(1)
        task = asyncio.create_task(stream(tx))
        pieces = []
        while (token := await rx.recv()) is not None:
            pieces.append(token)
        await task
        assert len(pieces) > 2
        assert "".join(pieces) == whole

        tx, rx = channel(100)
        await stream(tx)
        assert "".join([token async for token in rx]) == whole

        for tokens in (asyncio.Queue(), queue.Queue()):
            await stream(tokens)
            *got, end = [tokens.get_nowait() for _ in range(tokens.qsize())]
            assert "".join(got) == whole
            assert end is None

        socket = Socket()
        await stream(socket)
        assert "".join(socket.sent) == whole
        assert socket.is_closed

        collected: list[str] = []
        await stream(collected.append)
        assert "".join(collected) == whole
        with pytest.raises(TypeError, match="send or put"):
            await stream(5)

    asyncio.run(main())


def test_a_receiver_that_leaves_ends_the_generation(engine: Engine):
    """Closing the other end stops the work; sending into a closed channel says so."""

    async def main() -> None:
        session = engine.create_session(Constant(100))
        tx, rx = channel(1)
        task = asyncio.create_task(session.generate_stream("a", 900, 1.0, 1.0, tx))
        await rx.recv()
        await rx.close()
        await task
        assert session.stats().finish_reason == "cancelled"
        assert session.stats().tokens_generated < 900
        with pytest.raises(ChannelClosed):
            await tx.send("more")
        with pytest.raises(ValueError, match="capacity"):
            channel(0)

    asyncio.run(main())


def test_cancelling(engine: Engine):
    """cancel_generation, from a task or a thread, ends it with what there is; so does a task's."""

    async def main() -> None:
        session = engine.create_session(Constant(100))
        for cancel in (
            session.cancel_generation,
            lambda: asyncio.get_running_loop().run_in_executor(None, session.cancel_generation),
        ):
            session.clear_context()
            before = session.stats().tokens_generated
            task = asyncio.create_task(session.generate("a", 900, 1.0, 1.0))
            await asyncio.sleep(0.05)
            cancel()
            text = await task
            assert 0 < session.stats().tokens_generated - before < 900
            assert text
            assert session.stats().finish_reason == "cancelled"
        session.cancel_generation()  # nothing runs: nothing happens
        task = asyncio.create_task(session.generate("a", 900, 1.0, 1.0))
        await asyncio.sleep(0.02)
        with pytest.raises(GenerationFailed, match="already"):
            await session.generate("b", 1, 1.0, 1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await session.generate("b", 1, 1.0, 1.0)

    asyncio.run(main())


def test_sessions_run_side_by_side(engine: Engine):
    """Each gets what it gets alone, and the engine counts them."""

    async def main() -> None:
        sessions = [engine.create_session() for _ in range(6)]
        together = await asyncio.gather(*(s.generate(PROMPT, 16, 0.0, 1.0) for s in sessions))
        assert len(set(together)) == 1
        stats = engine.stats()
        assert stats.model == "demo"
        assert stats.active_sessions >= 6
        assert stats.total_requests >= 6
        assert stats.tokens_generated > 6
        assert stats.memory_used > 0
        assert stats.uptime > 0

    asyncio.run(main())


def test_parameters_are_checked(engine: Engine):
    """Out of range is refused, and the session goes on."""

    async def main() -> None:
        session = engine.create_session()
        for wrong in ((0, 0.7, 0.9), (5, -1.0, 0.9), (5, 0.7, 2.0)):
            with pytest.raises(InvalidRequest):
                await session.generate("a", *wrong)
        with pytest.raises(InvalidRequest):
            await session.generate(5, 5, 0.7, 0.9)
        await session.generate("a", 2, 0.7, 0.9)

    asyncio.run(main())


def test_unloading_ends_sessions():
    """A session of a model that has gone fails; a new one works."""

    async def main() -> None:
        engine = Engine()
        engine.load_model("demo")  # in a running event loop
        session = engine.create_session(Constant(100))
        task = asyncio.create_task(session.generate("a", 900, 1.0, 1.0))
        await asyncio.sleep(0.05)
        engine.unload_model()
        with pytest.raises(GenerationFailed):
            await task
        with pytest.raises(ModelNotLoaded):
            await session.generate("a", 2, 0.0, 1.0)
        engine.load_model("demo")
        assert await engine.create_session().generate("a", 2, 0.0, 1.0)
        engine.close()
        assert engine.current_model_name() is None

    asyncio.run(main())


def test_a_sampler_of_the_users_decides(engine: Engine):
    """Its tokens are the answer; it sees logits and parameters; one that errs fails the request."""
    sampler = Constant(100)
    assert isinstance(sampler, Sampler)

    async def main() -> None:
        session = engine.create_session(sampler)
        text = await session.generate("a", 5, 0.8, 0.95)
        with quintet.LLM("demo") as llm:
            vocab_size = llm.limits.vocab_size
            assert text == llm.tokenizer.decode([100] * 5)
        assert sampler.calls == [((vocab_size,), 0.8, 0.95, 0)] * 5
        for wrong in (-1, 10**9):
            session = engine.create_session(Constant(wrong))
            with pytest.raises(GenerationFailed, match="picked"):
                await session.generate("a", 5, 0.8, 0.95)

    asyncio.run(main())


def test_the_default_sampler():
    """Greedy is the largest; draws stay within top-k and follow the probabilities; seeds repeat."""
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = DefaultSampler(seed=1)
    assert isinstance(sampler, Sampler)
    assert sampler.sample(logits, 0.0, 1.0, 0) == 0
    drawn = [sampler.sample(logits, 1.0, 1.0, 0) for _ in range(4000)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    # Four standard deviations of a share.
    assert np.abs(shares - np.exp(logits)).max() < 4 * 0.5 / np.sqrt(len(drawn))
    assert {sampler.sample(logits, 1.0, 1.0, 2) for _ in range(200)} == {0, 1}
    assert {sampler.sample(logits, 1.0, 0.4, 0) for _ in range(50)} == {0}
    again = DefaultSampler(seed=1)
    again.sample(logits, 0.0, 1.0, 0)
    assert [again.sample(logits, 1.0, 1.0, 0) for _ in range(50)] == drawn[:50]
    with pytest.raises(InvalidRequest):
        sampler.sample(np.full(4, np.nan, np.float32), 1.0, 1.0, 0)


def test_seeded_sessions_repeat(engine: Engine):
    """A session with a seeded sampler draws the same again; one without differs."""

    async def main() -> None:
        texts = [
            await engine.create_session(sampler).generate("Tell me a story", 40, 1.5, 1.0)
            for sampler in (DefaultSampler(3), DefaultSampler(3), DefaultSampler(4))
        ]
        assert texts[0] == texts[1] != texts[2]

    asyncio.run(main())


def test_mirostat_keeps_what_quintets_keeps():
    """At each mu the tokens it can draw are those of Mirostat 2 in Quintet's sampler."""
    generator = np.random.default_rng(0)
    logits = (3 * generator.standard_normal(200)).astype(np.float32)
    for tau in (1.0, 3.0, 5.0):
        params = SamplingParams(mirostat=2, mirostat_tau=tau, mirostat_eta=0.1)
        row = RowSampler(params, vocab_size=200, eos_ids=frozenset(), prompt_ids=(), seed=0)
        allowed = set(row.distribution(logits))
        sampler = MirostatSampler(tau, 0.0, seed=5)
        drawn = {sampler.sample(logits, 1.0, 1.0, 0) for _ in range(3000)}
        assert drawn <= allowed
        assert len(drawn) > len(allowed) // 4
        assert sampler.mu == 2 * tau


def test_mirostat_reaches_its_target():
    """With feedback the mean surprise is tau; without temperature it is greedy."""
    generator = np.random.default_rng(0)
    logits = (2 * generator.standard_normal(1000)).astype(np.float32)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    sampler = MirostatSampler(tau=4.0, eta=0.1, mu=8.0, seed=1)
    surprises = []
    for _ in range(1500):
        mu = sampler.mu
        token = sampler.sample(logits, 1.0, 1.0, 0)
        kept = probabilities[-np.log2(probabilities) <= mu].sum() or probabilities.max()
        surprises.append(-np.log2(probabilities[token] / kept))
    assert abs(np.mean(surprises[500:]) - 4.0) < 0.3
    assert sampler.mu != 8.0
    assert sampler.sample(logits, 0.0, 1.0, 0) == int(logits.argmax())
    for wrong in ({"tau": 0.0}, {"eta": 2.0}):
        with pytest.raises(InvalidRequest):
            MirostatSampler(**wrong)


def test_mirostat_in_a_session(engine: Engine):
    """Its mu lives on from token to token."""
    sampler = MirostatSampler(tau=5.0, eta=0.1, seed=2)
    text = asyncio.run(engine.create_session(sampler).generate("Tell me a story", 20, 1.0, 1.0))
    assert text
    assert sampler.mu != 10.0


def test_errors_have_codes():
    """Each of the reference's codes is an error with its status; Quintet's become Woolly's."""
    codes = {kind.code: kind.status for kind in _subclasses(WoollyError)}
    assert codes == {
        "MODEL_NOT_FOUND": 404,
        "MODEL_NOT_LOADED": 400,
        "MODEL_LOAD_FAILED": 500,
        "INVALID_REQUEST": 400,
        "GENERATION_FAILED": 500,
        "OUT_OF_MEMORY": 507,
        "GPU_ERROR": 500,
        "TOKENIZER_ERROR": 500,
        "RATE_LIMITED": 429,
        "UNAUTHORIZED": 401,
        "INTERNAL_ERROR": 500,
    }
    assert woolly.Error is WoollyError
    assert issubclass(woolly.GpuError, WoollyError)
    assert str(ModelNotFound("llama-7b")) == "Model not found: llama-7b"
    assert str(woolly.ModelLoadFailed("no GGUF")) == "Model load failed: no GGUF"
    assert str(woolly.GpuError("none")) == "GPU error: none"
    assert str(OutOfMemory(needed=2, available=1)) == "Out of memory: need 2 bytes, available 1"
    cases = {
        quintet.ModelNotFoundError("x"): ModelNotFound,
        quintet.ModelFormatError("x"): woolly.ModelLoadFailed,
        quintet.UnsupportedModelError("architecture", "x"): woolly.ModelLoadFailed,
        quintet.CapacityError("x", resource="memory"): OutOfMemory,
        quintet.CapacityError("x", resource="request queue"): woolly.InternalError,
        quintet.ContextLengthError(2, 1): InvalidRequest,
        quintet.EngineError("x"): GenerationFailed,
    }
    for error, kind in cases.items():
        with pytest.raises(kind), translated():
            raise error


def test_every_name_is_there():
    """What the package lists can be imported; `channel` is the function."""
    for name in woolly.__all__:
        assert getattr(woolly, name) is not None
    assert callable(woolly.channel)
    assert dataclasses.is_dataclass(woolly.SessionStats)
    with pytest.raises(AttributeError):
        _ = woolly.nothing


def test_importing_it_imports_little():
    """No engine, numbers or YAML before they are used."""
    code = (
        "import sys, woolly; woolly.EngineConfig; woolly.WoollyError; woolly.Sampler;"
        "print([m for m in ('numpy', 'yaml', 'typer', 'asyncio', 'pydantic') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.strip() == "[]"


def _subclasses(kind: type[WoollyError]) -> list[type[WoollyError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in _subclasses(sub))]
