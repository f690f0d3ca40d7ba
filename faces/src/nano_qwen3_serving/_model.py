"""What `LLM` and `AsyncLLM` share: options, counters, and requests and answers translated."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nano_qwen3_serving._devices import usable_device
from nano_qwen3_serving.core.scheduler import RequestPriority
from nano_qwen3_serving.exceptions import InvalidParametersError, QueueFullError
from nano_qwen3_serving.sampling_params import CACHE_PRECISIONS, SamplingParams
from quintet import OutputChunk, Priority, RequestOutput, Tokenizer
from quintet import SamplingParams as QuintetParams
from quintet.beams import BeamSearchOutput
from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.request import RequestOptions
from quintet.engine.stats import EngineStats
from quintet.hub.resolve import resolve
from quintet.tokenizer import Detokenizer
from quintet.tools.inspect import inspect_model

Result = dict[str, Any]
Messages = Sequence[Mapping[str, Any]]

SYSTEM_PROMPT = "You are a helpful AI assistant."
KV_BLOCK_TOKENS = 16  # of the engine's own blocks, which results name
DTYPES = {"auto": "auto", "float16": "auto", "bfloat16": "bfloat16", "float32": "float32"}
"""Of weights, to Quintet's: "float16" keeps what the model's file has."""


@dataclass(frozen=True)
class ModelOptions:
    """
    How a model is loaded; the arguments of `LLM`.

    Raises:
        InvalidParametersError: a value out of range.
    """

    model_name: str
    device: str
    dtype: str
    max_queue_size: int
    num_blocks: int
    block_size: int
    max_seq_length: int

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InvalidParametersError(
                f"dtype: expected one of {', '.join(DTYPES)}, found {self.dtype!r}"
            )
        for name, minimum in (
            ("max_queue_size", 1),
            ("num_blocks", 1),
            ("block_size", 1),
            ("max_seq_length", 2),  # a token of prompt, one of answer
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < minimum:
                raise InvalidParametersError(
                    f"{name}: expected a number from {minimum}, found {value!r}"
                )

    @property
    def num_kv_blocks(self) -> int:
        """Blocks of the engine's size that hold as many tokens as those asked for."""
        return math.ceil(self.num_blocks * self.block_size / KV_BLOCK_TOKENS)

    def engine(self, cache_precision: str) -> dict[str, Any]:
        """Keywords of `quintet.LLM`."""
        return {
            "dtype": DTYPES[self.dtype],
            "kv_dtype": CACHE_PRECISIONS[cache_precision],
            "num_kv_blocks": self.num_kv_blocks,
            # Not less than others ask for, with whom the model is shared; ours is counted here.
            "max_queue": max(self.max_queue_size, EngineConfig.max_queue),
            "shared": True,
        }


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
        return {
            "request_id": job.request_id,
            "prompt": job.prompt,
            "generated_text": output.text,
            "tokens_generated": usage.num_generated_tokens,
            "total_tokens": usage.num_prompt_tokens + usage.num_generated_tokens,
            "block_indices": list(usage.block_ids),
        }

    def beam_result(
        self, job: Job, output: BeamSearchOutput, tokenizer: Tokenizer, started_s: float
    ) -> Result:
        """The best answer of a beam search as a dictionary, counted; cut where it is to stop."""
        token_ids, text = output.beams[0].token_ids, output.text
        stops = set(job.params.stop_token_ids or ())
        end = next((i for i, token_id in enumerate(token_ids) if token_id in stops), None)
        if end is not None:
            text = tokenizer.decode(token_ids[:end])
            token_ids = token_ids[: end + 1]
        ends = [text.find(stop) for stop in job.params.stop_sequences or () if stop in text]
        num_prompt_tokens = len(output.prompt_token_ids)
        self.count(len(token_ids), time.monotonic() - started_s, num_prompt_tokens, 0)
        return {
            "request_id": job.request_id,
            "prompt": job.prompt,
            "generated_text": text[: min(ends)] if ends else text,
            "tokens_generated": len(token_ids),
            "total_tokens": num_prompt_tokens + len(token_ids),
            "block_indices": list(output.block_ids),
        }

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


@dataclass(frozen=True)
class Job:
    """
    A prompt on its way to the engine.

    Args:
        request_id: of its result.
        prompt: its text.
        token_ids: as the model reads it.
        params: as the program gave them.
        max_tokens: of the answer.
        priority: for the engine.
    """

    request_id: int
    prompt: str
    token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    priority: Priority

    @property
    def sampling(self) -> QuintetParams:
        """How to sample."""
        return self.params.sampling(self.max_tokens)

    @property
    def options(self) -> RequestOptions:
        """How to serve it."""
        return {"priority": self.priority, "cache_salt": self.params.cache_salt}


class StreamResults:
    """
    Turns chunks into the dictionaries of a stream, one per token.

    Args:
        request_id: of all of them.
    """

    def __init__(self, request_id: int) -> None:
        self.request_id = request_id
        self._text = ""
        self._num_tokens = 0
        self._token_id = -1

    def of(self, chunk: OutputChunk) -> Result:
        """The next one."""
        self._num_tokens += len(chunk.token_ids)
        self._token_id = chunk.token_ids[-1] if chunk.token_ids else self._token_id
        return self._result(chunk.text, chunk.is_last)

    def replay(self, tokenizer: Tokenizer, output: BeamSearchOutput, text: str) -> Iterator[Result]:
        """The best answer of a finished beam search, token by token; `text` as it is to be."""
        detokenizer = Detokenizer(tokenizer, prompt_ids=output.prompt_token_ids)
        token_ids = output.beams[0].token_ids
        ends_hidden = output.beams[0].finish_reason == "stop"
        for index, token_id in enumerate(token_ids):
            is_last = index + 1 == len(token_ids)
            piece = "" if is_last and ends_hidden else detokenizer.push(token_id)
            if is_last:
                piece += detokenizer.flush()
            self._num_tokens += 1
            self._token_id = token_id
            room = len(text) - len(self._text)
            is_cut = len(piece) > room
            yield self._result(piece[:room], is_last or is_cut)
            if is_cut:
                return

    def _result(self, token: str, finished: bool) -> Result:
        self._text += token
        return {
            "token": token,
            "token_id": self._token_id,
            "text": self._text,
            "finished": finished,
            "tokens_generated": self._num_tokens,
            "request_id": self.request_id,
        }


def quintet_priority(priority: RequestPriority) -> Priority:
    """The same for the engine.

    Raises:
        InvalidParametersError: none of the three.
    """
    if not isinstance(priority, RequestPriority):
        raise InvalidParametersError(
            f"priority: expected RequestPriority.LOW, NORMAL or HIGH, found {priority!r}"
        )
    return Priority[priority.name]
