"""A model for asyncio programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import quintet
from nano_qwen3_serving._jobs import Job
from nano_qwen3_serving._model import SYSTEM_PROMPT, Messages, Model, texts_of
from nano_qwen3_serving._options import ModelOptions
from nano_qwen3_serving._results import Result, StreamResults
from nano_qwen3_serving._submitted import Submitted
from nano_qwen3_serving.core.scheduler import RequestPriority
from nano_qwen3_serving.exceptions import (
    GenerationError,
    InvalidParametersError,
    load_errors,
    request_errors,
)
from nano_qwen3_serving.sampling_params import SamplingParams
from quintet.beams import BeamSearchOutput

NORMAL = RequestPriority.NORMAL


class AsyncLLM:
    """
    A model for asyncio programs.  Safe to use from many tasks; their requests share each step.

    It is loaded on entering `async with`, with `start`, or with the first call that is awaited.
    Use it from one event loop.

    Args:
        worker_count: requests of `submit_request` that run at a time; what is awaited directly
            needs no worker.
        model_name, device, dtype, max_queue_size, num_blocks, block_size, max_seq_length: as for
            `LLM`.

    Raises: as `LLM`; what concerns the model's file, when it is loaded.
    """

    def __init__(
        self,
        model_name: str = "Qwen/Qwen3-0.6B",
        device: str = "mps",
        dtype: str = "float16",
        max_queue_size: int = 1000,
        num_blocks: int = 1024,
        block_size: int = 16,
        max_seq_length: int = 4096,
        worker_count: int = 2,
    ) -> None:
        if not isinstance(worker_count, int) or worker_count < 1:
            raise InvalidParametersError(
                f"worker_count: expected a number from 1, found {worker_count!r}"
            )
        options = ModelOptions(
            model_name, device, dtype, max_queue_size, num_blocks, block_size, max_seq_length
        )
        self._model = Model(options)
        self._engines: dict[str, quintet.AsyncLLM] = {}
        self._is_shut_down = False
        self._submitted = Submitted(self._serve, worker_count, max_queue_size)

    async def start(self) -> None:
        """Load the model, if it is not loaded yet."""
        await self._engine(SamplingParams())

    async def generate(
        self,
        prompts: str | Sequence[str],
        sampling_params: SamplingParams | None = None,
        priority: RequestPriority = NORMAL,
    ) -> Any:
        """
        Continue prompts; cancelling it ends them.

        Args, Raises: as for `LLM.generate`.

        Returns:
            For one prompt given as text a dictionary as from `LLM.generate`, for a list of them
            a list.
        """
        results = await self._generate(texts_of(prompts), sampling_params, priority)
        return results[0] if isinstance(prompts, str) else results

    async def generate_stream(
        self,
        prompt: str,
        sampling_params: SamplingParams | None = None,
        priority: RequestPriority = NORMAL,
    ) -> AsyncGenerator[Result, None]:
        """Continue one prompt, token by token; see `LLM.generate_stream`."""
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = await self._engine(params)
        with self._model.pending(1), request_errors():
            job = self._model.job(prompt, params, priority, engine.tokenizer, engine.limits)
            async for result in self._stream(engine, job):
                yield result

    async def generate_batch(
        self,
        prompts: Sequence[str],
        sampling_params: SamplingParams | None = None,
        batch_size: int = 4,
        priority: RequestPriority = NORMAL,
    ) -> list[Result]:
        """
        Continue prompts, so many at a time.

        Args:
            batch_size: requests of this call in the engine at a time.
            prompts, sampling_params, priority: as for `LLM.generate`.

        Returns:
            A dictionary per prompt, in order.

        Raises: as for `LLM.generate`.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidParametersError(
                f"batch_size: expected a number from 1, found {batch_size!r}"
            )
        room = asyncio.Semaphore(batch_size)

        async def one(prompt: str) -> Result:
            async with room:
                return (await self._generate([prompt], sampling_params, priority))[0]

        tasks = [asyncio.ensure_future(one(prompt)) for prompt in prompts]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            # Only then are their places in the queue free again.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def chat(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        system_prompt: str = SYSTEM_PROMPT,
    ) -> Result:
        """The assistant's next message; see `LLM.chat`."""
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = await self._engine(params)
        with self._model.pending(1), request_errors():
            job = self._model.chat_job(
                messages, system_prompt, params, engine.tokenizer, engine.limits
            )
            return (await self._answers(engine, [job]))[0]

    async def chat_stream(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        system_prompt: str = SYSTEM_PROMPT,
    ) -> AsyncGenerator[Result, None]:
        """The assistant's next message, token by token; see `LLM.chat_stream`."""
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = await self._engine(params)
        with self._model.pending(1), request_errors():
            job = self._model.chat_job(
                messages, system_prompt, params, engine.tokenizer, engine.limits
            )
            async for result in self._stream(engine, job):
                yield result

    async def submit_request(
        self,
        prompt: str,
        sampling_params: SamplingParams | None = None,
        priority: RequestPriority = NORMAL,
    ) -> int:
        """
        Leave a prompt to be continued in the background.

        Returns:
            The request's id, for `get_result`.

        Raises: as for `LLM.generate`, as far as it can be said at once.
        """
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = await self._engine(params)
        with request_errors():
            job = self._model.job(prompt, params, priority, engine.tokenizer, engine.limits)
        self._submitted.add(job)
        return job.request_id

    async def get_result(self, request_id: int) -> Result | None:
        """
        The result of a submitted request, as from `LLM.generate`; None while there is none.

        The results of the last `max_queue_size` requests are kept, and may be asked for again.

        Raises:
            GenerationError, InvalidParametersError, QueueFullError: what the request ended with.
        """
        return self._submitted.result(request_id)

    async def get_stats(self) -> dict[str, Any]:
        """This object's requests so far, and its engine's state; see `LLM.get_stats`."""
        loaded = [engine for engine in self._engines.values() if engine.state == "ready"]
        stats = self._model.stats(engine.stats() for engine in loaded)
        stats["queue_length"] += self._submitted.num_waiting
        return stats

    def get_model_info(self) -> dict[str, Any]:
        """What model this is; see `LLM.get_model_info`.

        Raises:
            GenerationError: it is not loaded yet.
        """
        with request_errors():
            engine = self._engines.get("float16")
            if engine is None:
                raise GenerationError("the model is not loaded; enter `async with` first")
            return self._model.info(engine.limits)

    async def clear_stats(self) -> None:
        """Count from zero."""
        self._model.clear_stats()

    async def shutdown(self) -> None:
        """End what is running and free the model, unless others use it.  Idempotent."""
        self._is_shut_down = True
        await self._submitted.close()
        engines = list(self._engines.values())
        self._engines.clear()
        for engine in engines:
            await engine.close()

    async def __aenter__(self) -> AsyncLLM:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    async def _engine(self, params: SamplingParams) -> quintet.AsyncLLM:
        """The model with a KV cache of that precision, loaded now if it is the first time."""
        if self._is_shut_down:
            raise GenerationError("the model is shut down")
        precision = params.cache_precision
        options = self._model.options
        if precision not in self._engines:
            with load_errors():
                self._engines[precision] = quintet.AsyncLLM(
                    options.model_name, **options.engine(precision)
                )
        engine = self._engines[precision]
        with load_errors():
            return await engine.__aenter__()

    async def _generate(
        self, texts: list[str], sampling_params: SamplingParams | None, priority: RequestPriority
    ) -> list[Result]:
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = await self._engine(params)
        with self._model.pending(len(texts)), request_errors():
            jobs = [
                self._model.job(text, params, priority, engine.tokenizer, engine.limits)
                for text in texts
            ]
            return await self._answers(engine, jobs)

    async def _answers(self, engine: quintet.AsyncLLM, jobs: list[Job]) -> list[Result]:
        if jobs and jobs[0].params.use_beam_search:
            return [(await self._beam_search(engine, job))[0] for job in jobs]
        options = jobs[0].options if jobs else {}
        outputs = await engine.generate(
            [job.token_ids for job in jobs], [job.sampling for job in jobs], **options
        )
        return [self._model.result(job, output) for job, output in zip(jobs, outputs, strict=True)]

    async def _stream(self, engine: quintet.AsyncLLM, job: Job) -> AsyncGenerator[Result, None]:
        results = StreamResults(job.request_id)
        if job.params.use_beam_search:
            result, output = await self._beam_search(engine, job)
            for each in results.replay(engine.tokenizer, output, result["generated_text"]):
                yield each
            return
        async for chunk in engine.stream(job.token_ids, job.sampling, **job.options):
            self._model.count_last(chunk)
            yield results.of(chunk)

    async def _beam_search(
        self, engine: quintet.AsyncLLM, job: Job
    ) -> tuple[Result, BeamSearchOutput]:
        started_s = time.monotonic()
        (output,) = await engine.beam_search(
            [job.token_ids], job.params.beam_search(job.max_tokens), priority=job.priority
        )
        return self._model.beam_result(job, output, engine.tokenizer, started_s), output

    async def _serve(self, job: Job) -> Result:
        """What `Submitted` does with each."""
        engine = await self._engine(job.params)
        with self._model.pending(1), request_errors():
            return (await self._answers(engine, [job]))[0]
