"""A model in a variable."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from typing import Any

import quintet
from nano_qwen3_serving._jobs import Job
from nano_qwen3_serving._model import SYSTEM_PROMPT, Messages, Model, texts_of
from nano_qwen3_serving._options import ModelOptions
from nano_qwen3_serving._results import Result, StreamResults
from nano_qwen3_serving.core.scheduler import RequestPriority
from nano_qwen3_serving.exceptions import GenerationError, load_errors, request_errors
from nano_qwen3_serving.sampling_params import SamplingParams
from quintet.beams import BeamSearchOutput

NORMAL = RequestPriority.NORMAL


class LLM:
    """
    A loaded model.  Safe to use from several threads; their requests share each step.

    Others in the process that use the same model, through whichever interface, share it.

    Args:
        model_name: of a model of Quintet's store, an alias, or a path.
        device: "cpu" or "auto"; "mps" and "cuda" run on the CPU where they are not there, and
            say so once in the log.
        dtype: of the weights: "float16" keeps what the file has; "bfloat16", "float32".
        max_queue_size: requests at a time; more are refused.
        num_blocks, block_size: their product is the number of tokens the KV cache holds.  The
            engine's own blocks, which results name, have 16 tokens.
        max_seq_length: tokens of prompt and answer together, or the model's own limit if less.

    Raises:
        ModelLoadError: no such model, or it cannot be loaded.
        InvalidParametersError: an option out of range.
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
    ) -> None:
        options = ModelOptions(
            model_name, device, dtype, max_queue_size, num_blocks, block_size, max_seq_length
        )
        self._model = Model(options)
        self._lock = threading.Lock()
        self._engines: dict[str, quintet.LLM] = {}
        self._is_shut_down = False
        self._engine(SamplingParams())

    def generate(
        self,
        prompts: str | Sequence[str],
        sampling_params: SamplingParams | None = None,
        priority: RequestPriority = NORMAL,
    ) -> list[Result]:
        """
        Continue prompts.

        Args:
            prompts: one or several.
            sampling_params: for all of them.
            priority: against other requests of this model.

        Returns:
            A dictionary per prompt, in order: request_id, prompt, generated_text,
            tokens_generated (a final stop token included), total_tokens and block_indices, the
            KV blocks the engine held for it.

        Raises:
            InvalidParametersError: a prompt or parameter that cannot be served.
            QueueFullError: more than `max_queue_size` requests.
            GenerationError: a request failed, or the model is shut down.
        """
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = self._engine(params)
        texts = texts_of(prompts)
        with self._model.pending(len(texts)), request_errors():
            jobs = [
                self._model.job(text, params, priority, engine.tokenizer, engine.limits)
                for text in texts
            ]
            return self._answers(engine, jobs)

    def generate_stream(
        self,
        prompt: str,
        sampling_params: SamplingParams | None = None,
        priority: RequestPriority = NORMAL,
    ) -> Generator[Result, None, None]:
        """
        Continue one prompt, token by token; leaving the loop ends the request.

        A beam search is done first, since its answer is not known before.

        Yields:
            A dictionary per token: token (its text), token_id, text (so far), finished,
            tokens_generated and request_id.

        Raises: as for `generate`, while iterating.
        """
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = self._engine(params)
        with self._model.pending(1), request_errors():
            job = self._model.job(prompt, params, priority, engine.tokenizer, engine.limits)
            yield from self._stream(engine, job)

    def chat(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        system_prompt: str = SYSTEM_PROMPT,
    ) -> Result:
        """
        The assistant's next message.

        Args:
            messages: the conversation, each with a role and a content, through the model's own
                chat template, without a thought before the answer.
            sampling_params: as for `generate`.
            system_prompt: stands first unless the messages begin with one.

        Returns:
            As `generate`, its prompt the conversation as the model reads it.

        Raises: as for `generate`.
        """
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = self._engine(params)
        with self._model.pending(1), request_errors():
            job = self._model.chat_job(
                messages, system_prompt, params, engine.tokenizer, engine.limits
            )
            return self._answers(engine, [job])[0]

    def chat_stream(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        system_prompt: str = SYSTEM_PROMPT,
    ) -> Generator[Result, None, None]:
        """The assistant's next message, token by token; see `chat` and `generate_stream`."""
        params = SamplingParams() if sampling_params is None else sampling_params
        engine = self._engine(params)
        with self._model.pending(1), request_errors():
            job = self._model.chat_job(
                messages, system_prompt, params, engine.tokenizer, engine.limits
            )
            yield from self._stream(engine, job)

    def generate_single(
        self,
        prompt: str,
        sampling_params: SamplingParams | None = None,
        priority: RequestPriority = NORMAL,
    ) -> Result:
        """Continue one prompt; see `generate`."""
        return self.generate(prompt, sampling_params, priority)[0]

    def generate_greedy(self, prompts: str | Sequence[str], max_tokens: int = 512) -> list[Result]:
        """Continue prompts with the most probable tokens; see `generate`."""
        return self.generate(prompts, SamplingParams.greedy(max_tokens))

    def generate_creative(
        self, prompts: str | Sequence[str], max_tokens: int = 512
    ) -> list[Result]:
        """Continue prompts as `SamplingParams.creative` does; see `generate`."""
        return self.generate(prompts, SamplingParams.creative(max_tokens))

    def generate_balanced(
        self, prompts: str | Sequence[str], max_tokens: int = 512
    ) -> list[Result]:
        """Continue prompts as `SamplingParams.balanced` does; see `generate`."""
        return self.generate(prompts, SamplingParams.balanced(max_tokens))

    def get_stats(self) -> dict[str, Any]:
        """
        This object's requests so far, and the state of its engine, which others may share.

        Returns:
            requests_served, total_tokens_generated, average_response_time (seconds),
            cache_hit_rate (of prompt tokens, 0 to 1), memory_usage (bytes: "allocated" of the
            process, "cached" by prefixes nobody uses now), queue_length (waiting), and
            active_requests.
        """
        with self._lock:
            engines = list(self._engines.values())
        return self._model.stats(engine.stats() for engine in engines)

    def get_model_info(self) -> dict[str, Any]:
        """model_name, device (where it runs), dtype, max_seq_length, vocab_size, num_parameters."""
        return self._model.info(self._engine(SamplingParams()).limits)

    def clear_stats(self) -> None:
        """Count from zero."""
        self._model.clear_stats()

    def shutdown(self) -> None:
        """End what is running and free the model, unless others use it.  Idempotent."""
        with self._lock:
            self._is_shut_down = True
            engines = list(self._engines.values())
            self._engines.clear()
        for engine in engines:
            engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _engine(self, params: SamplingParams) -> quintet.LLM:
        """The model with a KV cache of that precision, loaded now if it is the first time."""
        precision = params.cache_precision
        with self._lock:
            if self._is_shut_down:
                raise GenerationError("the model is shut down")
            if precision not in self._engines:
                options = self._model.options
                with load_errors():
                    self._engines[precision] = quintet.LLM(
                        options.model_name, **options.engine(precision)
                    )
            return self._engines[precision]

    def _answers(self, engine: quintet.LLM, jobs: list[Job]) -> list[Result]:
        if jobs and jobs[0].params.use_beam_search:
            return [self._beam_search(engine, job)[0] for job in jobs]
        options = jobs[0].options if jobs else {}
        outputs = engine.generate(
            [job.token_ids for job in jobs], [job.sampling for job in jobs], **options
        )
        return [self._model.result(job, output) for job, output in zip(jobs, outputs, strict=True)]

    def _stream(self, engine: quintet.LLM, job: Job) -> Generator[Result, None, None]:
        results = StreamResults(job.request_id)
        if job.params.use_beam_search:
            result, output = self._beam_search(engine, job)
            yield from results.replay(engine.tokenizer, output, result["generated_text"])
            return
        for chunk in engine.stream(job.token_ids, job.sampling, **job.options):
            self._model.count_last(chunk)
            yield results.of(chunk)

    def _beam_search(self, engine: quintet.LLM, job: Job) -> tuple[Result, BeamSearchOutput]:
        started_s = time.monotonic()
        (output,) = engine.beam_search(
            [job.token_ids], job.params.beam_search(job.max_tokens), priority=job.priority
        )
        return self._model.beam_result(job, output, engine.tokenizer, started_s), output
