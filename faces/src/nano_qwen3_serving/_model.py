"""What `LLM` and `AsyncLLM` share: counters, and requests made of what programs give."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nano_qwen3_serving._devices import usable_device
from nano_qwen3_serving._jobs import Job, quintet_priority
from nano_qwen3_serving._options import ModelOptions
from nano_qwen3_serving._results import Result, beam_result_of, result_of
from nano_qwen3_serving.core.scheduler import RequestPriority
from nano_qwen3_serving.exceptions import InvalidParametersError, QueueFullError
from nano_qwen3_serving.sampling_params import SamplingParams
from quintet import OutputChunk, RequestOutput, Tokenizer
from quintet.beams import BeamSearchOutput
from quintet.engine.admission import EngineLimits
from quintet.engine.stats import EngineStats
from quintet.hub.resolve import resolve
from quintet.tools.inspect import inspect_model

Messages = Sequence[Mapping[str, Any]]

SYSTEM_PROMPT = "You are a helpful AI assistant."


class Model:
    """
    The state of one `LLM` or `AsyncLLM`, beside its engines.

    Args:
        options: how it is loaded.
    """

    def __init__(self, options: ModelOptions) -> None:
        self.options = options
        self.device = usable_device(options.device)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._num_pending = 0
        self._num_served = 0
        self._num_tokens = 0
        self._seconds = 0.0
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._num_parameters: int | None = None

    def new_id(self) -> int:
        """A request id that no other request of this model has."""
        return next(self._ids)

    @contextmanager
    def pending(self, num_requests: int) -> Iterator[None]:
        """Requests on their way.

        Raises:
            QueueFullError: there would be more than `max_queue_size`.
        """
        with self._lock:
            if self._num_pending + num_requests > self.options.max_queue_size:
                raise QueueFullError(
                    f"the queue holds {self.options.max_queue_size} requests, "
                    f"{self._num_pending} are in it and {num_requests} are to be added"
                )
            self._num_pending += num_requests
        try:
            yield
        finally:
            with self._lock:
                self._num_pending -= num_requests

    def job(
        self,
        prompt: str,
        params: SamplingParams,
        priority: RequestPriority,
        tokenizer: Tokenizer,
        limits: EngineLimits,
    ) -> Job:
        """A request for one prompt; text in it that spells a control token is that token.

        Raises:
            InvalidParametersError: what it is made of cannot be served.
        """
        if not isinstance(prompt, str):
            raise InvalidParametersError(f"prompts: expected text, found {type(prompt).__name__}")
        ids = list(tokenizer.encode(prompt, add_special=True, parse_special=True))
        return self._job(prompt, ids, params, priority, limits)

    def chat_job(
        self,
        messages: Messages,
        system_prompt: str,
        params: SamplingParams,
        tokenizer: Tokenizer,
        limits: EngineLimits,
    ) -> Job:
        """A request for the next message of a conversation, without a thought before it.

        The system prompt stands first unless the messages bring one.

        Raises:
            InvalidParametersError: what it is made of cannot be served.
            RequestError: the chat template refuses the messages.
        """
        talk = list(messages)
        if system_prompt and not (talk and talk[0].get("role") == "system"):
            talk.insert(0, {"role": "system", "content": system_prompt})
        prompt = tokenizer.render_chat(talk, enable_thinking=False)
        ids = tokenizer.encode_chat(talk, enable_thinking=False)
        return self._job(prompt, ids, params, RequestPriority.NORMAL, limits)

    def _job(
        self,
        prompt: str,
        ids: list[int],
        params: SamplingParams,
        priority: RequestPriority,
        limits: EngineLimits,
    ) -> Job:
        size = self._max_tokens(len(ids), params, limits)
        return Job(self.new_id(), prompt, ids, params, size, quintet_priority(priority))

    def _max_tokens(
        self, num_prompt_tokens: int, params: SamplingParams, limits: EngineLimits
    ) -> int:
        room = min(self.options.max_seq_length, limits.max_model_len) - num_prompt_tokens
        if room < 1:
            raise InvalidParametersError(
                f"prompt: expected fewer than {room + num_prompt_tokens} tokens, "
                f"found {num_prompt_tokens}"
            )
        return min(params.max_tokens, room)

    def result(self, job: Job, output: RequestOutput) -> Result:
        """An answer as a dictionary, counted."""
        usage, timings = output.usage, output.timings
        self.count(
            usage.num_generated_tokens,
            timings.queue_s + timings.prefill_s + timings.decode_s,
            usage.num_prompt_tokens,
            usage.num_cached_tokens,
        )
        return result_of(job, output)

    def beam_result(
        self, job: Job, output: BeamSearchOutput, tokenizer: Tokenizer, started_s: float
    ) -> Result:
        """The best answer of a beam search as a dictionary, counted."""
        result = beam_result_of(job, output, tokenizer)
        seconds = time.monotonic() - started_s
        self.count(result["tokens_generated"], seconds, len(output.prompt_token_ids), 0)
        return result

    def count_last(self, chunk: OutputChunk) -> None:
        """Count a streamed request, if this is its last chunk."""
        usage, timings = chunk.usage, chunk.timings
        if usage is not None and timings is not None:
            self.count(
                usage.num_generated_tokens,
                timings.queue_s + timings.prefill_s + timings.decode_s,
                usage.num_prompt_tokens,
                usage.num_cached_tokens,
            )

    def count(
        self, num_tokens: int, seconds: float, num_prompt_tokens: int, num_cached_tokens: int
    ) -> None:
        """Count a request that has been served."""
        with self._lock:
            self._num_served += 1
            self._num_tokens += num_tokens
            self._seconds += seconds
            self._num_prompt_tokens += num_prompt_tokens
            self._num_cached_tokens += num_cached_tokens

    def stats(self, engines: Iterable[EngineStats]) -> Result:
        """This model's counters, and the state of its engines."""
        engines = list(engines)
        with self._lock:
            return {
                "requests_served": self._num_served,
                "total_tokens_generated": self._num_tokens,
                "average_response_time": self._seconds / max(1, self._num_served),
                "cache_hit_rate": self._num_cached_tokens / max(1, self._num_prompt_tokens),
                "memory_usage": {
                    "allocated": max((each.resident_bytes for each in engines), default=0),
                    "cached": sum(each.num_cached_blocks * each.block_bytes for each in engines),
                },
                "queue_length": sum(each.num_waiting for each in engines),
                "active_requests": self._num_pending,
            }

    def clear_stats(self) -> None:
        """Count from zero; what is on its way will be counted when it ends."""
        with self._lock:
            self._num_served = self._num_tokens = 0
            self._num_prompt_tokens = self._num_cached_tokens = 0
            self._seconds = 0.0

    def info(self, limits: EngineLimits) -> Result:
        """What model this is, and where it runs."""
        if self._num_parameters is None:
            path = resolve(self.options.model_name)
            self._num_parameters = inspect_model(path).num_parameters
        return {
            "model_name": self.options.model_name,
            "device": self.device,
            "dtype": self.options.dtype,
            "max_seq_length": min(self.options.max_seq_length, limits.max_model_len),
            "vocab_size": limits.vocab_size,
            "num_parameters": self._num_parameters,
        }


def texts_of(prompts: str | Iterable[str]) -> list[str]:
    """One prompt or several as a list.

    Raises:
        InvalidParametersError: neither a text nor a list.
    """
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Iterable):
        raise InvalidParametersError(
            f"prompts: expected a text or a list, found {type(prompts).__name__}"
        )
    return list(prompts)
