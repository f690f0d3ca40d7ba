"""AsyncLLM: the names of LLM, awaitable."""

import asyncio
import inspect
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from engine.tiny_model import CONTEXT_LENGTH, write_tiny_model
from quintet import (
    LLM,
    AsyncLLM,
    BeamSearchParams,
    ContextLengthError,
    EngineError,
    ModelNotFoundError,
)
from quintet import SamplingParams as Params
from quintet.backends.base import Float32Array, StepInput
from quintet.backends.cpu import CPUExecutor

GREEDY = Params(max_tokens=12, temperature=0, ignore_eos=True)
ENDLESS = Params(max_tokens=None, temperature=0, ignore_eos=True)
SEVERAL = Params(max_tokens=5, seed=1, n=3, ignore_eos=True)
BEAMS = BeamSearchParams(beam_width=2, max_tokens=4)
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a step take so long that ENDLESS requests do not end by themselves in a test."""
    run = CPUExecutor.run

    def slow_run(executor: CPUExecutor, step: StepInput) -> Float32Array:
        time.sleep(0.02)
        return run(executor, step)

    monkeypatch.setattr(CPUExecutor, "run", slow_run)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, with asyncio's own checks on."""
    asyncio.run(main, debug=True)


def public(kind: type) -> dict[str, Any]:
    """Public methods and properties by name."""
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def test_async_llm_has_the_names_and_parameters_of_llm() -> None:
    """Both APIs are one: same methods, same parameters, same defaults."""
    sync_names, async_names = public(LLM), public(AsyncLLM)
    assert set(sync_names) == set(async_names)
    for name, method in [*sync_names.items(), ("__init__", LLM.__init__)]:
        other = getattr(AsyncLLM, name)
        if isinstance(method, property):
            assert isinstance(other, property)
            continue
        ours, theirs = inspect.signature(method), inspect.signature(other)
        assert ours.parameters == theirs.parameters, name
        expected = ours.return_annotation.replace("Iterator", "AsyncIterator")
        assert theirs.return_annotation == expected, name
        assert other.__doc__ or name == "__init__"


def test_async_llm_answers_like_llm(path: Path) -> None:
    """generate, stream, chat, stream_chat and beam_search give the same in both."""

    async def main() -> None:
        with LLM(path, num_threads=1) as llm:
            whole = llm.generate(["Once", [1, 2, 3]], GREEDY)
            chat = llm.chat(HELLO, GREEDY)
            several = llm.generate("Once", SEVERAL)
            beams = llm.beam_search(["Once", [1, 2, 3]], BEAMS)
        async with AsyncLLM(path, num_threads=1) as llm:
            outputs = await llm.generate(["Once", [1, 2, 3]], GREEDY)
            assert [o.token_ids for o in outputs] == [o.token_ids for o in whole]
            assert [o.text for o in outputs] == [o.text for o in whole]
            assert (await llm.chat(HELLO, GREEDY)).text == chat.text
            chunks = [chunk async for chunk in llm.stream("Once", GREEDY)]
            assert tuple(chunk.token_id for chunk in chunks) == whole[0].token_ids
            chunks = [chunk async for chunk in llm.stream_chat(HELLO, GREEDY)]
            assert "".join(chunk.text for chunk in chunks) == chat.text
            assert llm.tokenizer.decode(outputs[0].token_ids) == outputs[0].text
            assert llm.limits.max_model_len == CONTEXT_LENGTH
            assert llm.stats().num_finished == 5
            assert (await llm.generate("Once", SEVERAL))[0].choices == several[0].choices
            assert await llm.beam_search(["Once", [1, 2, 3]], BEAMS) == beams

    run(main())


def test_async_llm_loads_once_on_first_use(path: Path) -> None:
    """Without `async with` the first awaited call loads; tasks that race share the model."""

    async def main() -> None:
        llm = AsyncLLM(path, num_threads=1)
        with pytest.raises(EngineError, match="not loaded"):
            llm.stats()
        await asyncio.gather(*(llm.generate("a", GREEDY) for _ in range(8)))
        assert llm.stats().num_finished == 8
        await llm.close()
        await llm.close()
        with pytest.raises(EngineError, match="closed"):
            await llm.generate("a", GREEDY)

    run(main())


def test_async_llm_closed_while_it_loads(path: Path) -> None:
    """Closing does not wait for a load in another process: it ends it."""

    async def main() -> None:
        llm = AsyncLLM("demo", isolated=True)
        loading = asyncio.ensure_future(llm.__aenter__())
        while llm._loading is None:
            await asyncio.sleep(0.001)
        await llm.close()
        assert llm.is_closed
        with pytest.raises(EngineError, match="closed"):
            await loading
        assert llm._loading.pid is None

    asyncio.run(main())


def test_async_llm_closed_before_use_stays_closed(path: Path) -> None:
    """A model that was closed is not loaded any more."""

    async def main() -> None:
        llm = AsyncLLM(path)
        assert not llm.is_closed
        assert llm.state == "loading"
        await llm.close()
        assert llm.is_closed
        assert llm.state == "closed"
        with pytest.raises(EngineError, match="closed"):
            await llm.generate("a")

    run(main())


def test_async_llm_raises_what_llm_raises(path: Path, tmp_path: Path) -> None:
    """Errors of the model come on entering, errors of a request when it is awaited."""

    async def main() -> None:
        with pytest.raises(ModelNotFoundError):
            async with AsyncLLM(tmp_path / "none.gguf"):
                pass
        async with AsyncLLM(path, num_threads=1) as llm:
            with pytest.raises(ContextLengthError):
                await llm.generate([[1] * CONTEXT_LENGTH])
            with pytest.raises(ContextLengthError):
                await anext(llm.stream([1] * CONTEXT_LENGTH))

    run(main())


def test_async_llm_batches_tasks_together(path: Path) -> None:
    """Many tasks share steps: far fewer of them than tokens."""

    async def main() -> None:
        async with AsyncLLM(path, num_threads=1) as llm:
            await asyncio.gather(*(llm.generate([i, i + 1], GREEDY) for i in range(1, 17)))
            stats = llm.stats()
            assert stats.num_generated_tokens == 16 * 12
            assert stats.num_steps < 16 * 12 / 4

    run(main())


@pytest.mark.usefixtures("slow_steps")
@pytest.mark.parametrize("leave", ["aclose", "break", "cancel", "cancel generate"])
def test_async_llm_aborts_what_is_left_behind(path: Path, leave: str) -> None:
    """Closing, leaving or cancelling ends the request in the engine."""

    async def main() -> None:
        async with AsyncLLM(path, num_threads=1) as llm:

            async def read() -> None:
                async for _ in llm.stream("a", ENDLESS):
                    pass

            if leave == "aclose":
                stream = llm.stream("a", ENDLESS)
                await anext(stream)
                await stream.aclose()
            elif leave == "break":
                async for _ in llm.stream("a", ENDLESS):
                    break
            else:
                work = read() if leave == "cancel" else llm.generate(["a", "b"], ENDLESS)
                task = asyncio.ensure_future(work)
                while llm.stats().num_generated_tokens == 0:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            while llm.stats().num_running + llm.stats().num_waiting:
                await asyncio.sleep(0.001)
            assert llm.stats().num_aborted == (2 if leave == "cancel generate" else 1)
            assert llm.stats().num_used_blocks == 0

    run(main())


@pytest.mark.usefixtures("slow_steps")
def test_async_llm_close_ends_streams(path: Path) -> None:
    """A task that reads while the model is closed gets EngineError."""

    async def main() -> None:
        llm = AsyncLLM(path, num_threads=1)
        stream = llm.stream("a", ENDLESS)
        await anext(stream)
        await llm.close()
        with pytest.raises(EngineError, match="closed"):
            async for _ in stream:
                pass

    run(main())
