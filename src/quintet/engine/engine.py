"""The engine: sequences in, chunks of output out, one step at a time.

Not thread-safe, by design: one loop owns it (see `thread.py`) and everybody
else sends that loop messages.
"""

from __future__ import annotations

import dataclasses
import heapq
import logging
import random
import time
from collections.abc import Callable
from collections.abc import Sequence as Collection

from quintet.backends.base import BLOCK_SIZE, Executor, Float32Array
from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.block_pool import BlockPool
from quintet.engine.output import FinishReason, OutputChunk, TokenLogprob
from quintet.engine.request import Request
from quintet.engine.scheduler import Scheduled, Scheduler
from quintet.engine.sequence import Sequence, Status
from quintet.engine.speculation.speculator import Drafter, Speculator
from quintet.engine.stats import EngineStats
from quintet.engine.step_builder import build_step
from quintet.engine.text import Detokenizer, TextStream
from quintet.engine.verification import Row, first_rows, logits_of
from quintet.errors import RequestError
from quintet.sampling.sampler import RowSampler, SampledToken, sample
from quintet.sampling.stop import StopChecker

logger = logging.getLogger(__name__)


class Engine:
    """
    Continuous batching over one executor.

    Args:
        executor: the model and its KV cache; the engine closes it.
        new_detokenizer: makes the detokenizer of a new sequence, given its prompt.
        eos_ids: tokens that end an answer unless `SamplingParams.ignore_eos`.
        max_model_len: tokens of prompt and answer together.
        vocab_size: tokens there are; further columns of the logits are padding.  None:
            all of them are tokens.
        config: batching options; its `max_model_len` and `kv_cache_bytes` have been
            decided by whoever made the executor.
        drafter: guesses tokens ahead; the engine closes it.  None: n-gram lookup where
            the config asks for it.

    Raises:
        ValueError: the KV cache cannot hold one sequence of `max_model_len` tokens, or
            the executor's steps are smaller than the budget.
    """

    def __init__(
        self,
        executor: Executor,
        new_detokenizer: Callable[[Collection[int]], Detokenizer],
        *,
        eos_ids: frozenset[int],
        max_model_len: int,
        vocab_size: int | None = None,
        config: EngineConfig | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        config = EngineConfig() if config is None else config
        if max_model_len > executor.num_blocks * BLOCK_SIZE:
            raise ValueError(
                f"expected a KV cache of at least {max_model_len} tokens, "
                f"found {executor.num_blocks} blocks of {BLOCK_SIZE}"
            )
        if config.max_num_batched_tokens > executor.max_num_batched_tokens:
            raise ValueError(
                f"expected steps of up to {config.max_num_batched_tokens} tokens, "
                f"the executor takes {executor.max_num_batched_tokens}"
            )
        self.limits = EngineLimits(
            vocab_size=min(executor.vocab_size, vocab_size or executor.vocab_size),
            max_model_len=max_model_len,
            max_num_requests=config.max_num_seqs + config.max_queue,
        )
        self._executor = executor
        self._new_detokenizer = new_detokenizer
        self._eos_ids = eos_ids
        self._seeds = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        pool = BlockPool(executor.num_blocks, enable_prefix_cache=config.enable_prefix_cache)
        self._scheduler = Scheduler(config, pool)
        self._speculator = Speculator(config, self._scheduler, drafter)
        self._sequences: dict[str, Sequence] = {}
        # Soonest first; ids may be used again, ranks are not.
        self._deadlines: list[tuple[float, tuple[int, int], str]] = []
        self._stats = EngineStats(num_blocks=executor.num_blocks)

    @property
    def has_work(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self._sequences)

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RequestError: it can never be served, or its id is in use.
        """
        self.limits.check(request)
        if request.request_id in self._sequences:
            raise RequestError(f"{request.request_id!r} is in use", parameter="request_id")
        sequence = self._new_sequence(request)
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)
        if request.timeout_s is not None:
            deadline_s = request.arrival_s + request.timeout_s
            heapq.heappush(self._deadlines, (deadline_s, sequence.rank, request.request_id))
        self._stats.num_requests += 1

    def step(self) -> list[OutputChunk]:
        """End what is late, schedule, run, sample, hand out.

        Whatever the model raises ends the sequences of this step only.

        Returns:
            A chunk for each token, in the order of each sequence's, and for each early end.
        """
        started_s = time.monotonic()
        late = self._end_late(started_s)
        if not self.has_work:
            return late
        return late + self._step(started_s)

    def _step(self, started_s: float) -> list[OutputChunk]:
        batch = self._scheduler.schedule()
        self._note_first_runs(batch, started_s)
        batch = self._speculator.extend(batch)
        run_s = time.monotonic()
        try:
            logits = self._run(batch)
        except Exception as error:  # noqa: BLE001 - one step's failure must not be the engine's
            return self._fail_step(batch, error)
        finally:
            self._stats.last_step_s = time.monotonic() - started_s
        rows = first_rows(batch)
        self._scheduler.commit(batch)
        chunks = self._sample(rows, logits)
        self._settle(batch, time.monotonic() - run_s)
        return chunks

    def abort(self, request_id: str) -> OutputChunk | None:
        """End a request now; None if it is unknown or has ended."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return None
        return self._end_early(sequence, "abort")

    def stats(self) -> EngineStats:
        """The counters as they are now; the caller's to keep."""
        pool = self._scheduler.pool
        return dataclasses.replace(
            self._stats,
            num_waiting=self._scheduler.num_waiting,
            num_running=self._scheduler.num_running,
            num_preemptions=self._scheduler.num_preemptions,
            num_steps=self._scheduler.num_steps,
            num_used_blocks=pool.num_blocks - pool.num_available,
            num_cached_blocks=pool.num_cached,
        )

    def audit(self) -> None:
        """Check the books: every block is accounted for, every sequence is in its place.

        Raises:
            AssertionError: says which account is wrong.
        """
        self._scheduler.audit()
        if set(self._scheduler) != set(self._sequences.values()):
            raise AssertionError("the scheduler and the engine know different sequences")

    def close(self) -> None:
        """Drop every request and free the model.  Idempotent."""
        try:
            for request_id in tuple(self._sequences):
                self.abort(request_id)
        finally:
            self._speculator.close()
            self._executor.close()

    def _new_sequence(self, request: Request) -> Sequence:
        params = request.params
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        max_total_tokens = self.limits.max_model_len
        if params.max_tokens is not None:
            num_wanted = len(request.prompt_token_ids) + params.max_tokens
            slides = request.overflow == "slide"
            max_total_tokens = num_wanted if slides else min(max_total_tokens, num_wanted)
        return Sequence(
            request,
            rank=self._scheduler.rank(request),
            sampler=RowSampler(
                params,
                vocab_size=self.limits.vocab_size,
                eos_ids=self._eos_ids,
                prompt_ids=request.prompt_token_ids,
                seed=seed,
            ),
            text=TextStream(
                self._new_detokenizer(request.prompt_token_ids),
                StopChecker(params.stop_strings, include_stop=params.include_stop_str_in_output),
                params.min_tokens,
            ),
            eos_ids=frozenset() if params.ignore_eos else self._eos_ids,
            max_total_tokens=max_total_tokens,
            max_model_len=self.limits.max_model_len,
        )

    def _run(self, batch: list[Scheduled]) -> Float32Array:
        """Compute the batch's tokens; a row of logits for each that may be sampled from."""
        if not batch:
            raise RuntimeError("no sequence could be scheduled")  # a leak of blocks would do it
        return self._executor.run(build_step(batch))

    def _sample(self, rows: list[Row], logits: Float32Array) -> list[OutputChunk]:
        """Sample from each row and from those that right guesses have made count."""
        chunks: list[OutputChunk] = []
        while rows:
            try:
                tokens = sample(logits_of(rows, logits), [row.sequence.sampler for row in rows])
            except Exception as error:  # noqa: BLE001 - as in step
                return chunks + self._fail_rows([row.sequence for row in rows], error)
            following = []
            for row, token in zip(rows, tokens, strict=True):
                chunk = self._advance(row.sequence, token)
                chunks.append(chunk)
                next_row = row.after(token.token_id)
                if chunk.finish_reason is None and next_row is not None:
                    self._scheduler.advance(row.sequence, 1)
                    self._stats.num_accepted_tokens += 1
                    following.append(next_row)
            rows = following
        return chunks

    def _settle(self, batch: list[Scheduled], seconds: float) -> None:
        """Clear up after guesses, right or wrong."""
        for scheduled in batch:
            sequence = scheduled.sequence
            if sequence.status is Status.RUNNING:
                self._scheduler.trim(sequence)
            self._stats.num_draft_tokens += len(scheduled.draft_ids)
        self._speculator.record(batch, seconds)

    def _advance(self, sequence: Sequence, token: SampledToken) -> OutputChunk:
        """Take in a sequence's sampled token; its failure is nobody else's."""
        if token.error is not None:
            return self._fail(sequence, f"the model gave no usable logits ({token.error} error)")
        try:
            return self._append(sequence, token)
        except Exception as error:
            logger.error("a token could not be taken in", exc_info=error)
            return self._fail(sequence, f"token {token.token_id}: {error}")

    def _append(self, sequence: Sequence, token: SampledToken) -> OutputChunk:
        """Append a token, and let go of the sequence if it is the last."""
        if sequence.first_token_s is None:
            sequence.first_token_s = time.monotonic()
        self._stats.num_generated_tokens += 1
        text, finish_reason, stop_reason = sequence.append(token.token_id)
        chunk = OutputChunk(
            sequence.request_id,
            text=text,
            token_ids=(token.token_id,),
            logprobs=_logprobs(token),
        )
        if finish_reason is not None:
            return self._end(sequence, finish_reason, chunk, stop_reason=stop_reason)
        if sequence.slide():
            self._speculator.forget(sequence)
            self._scheduler.requeue(sequence)
        return chunk

    def _end_late(self, now_s: float) -> list[OutputChunk]:
        """End the sequences whose time is up."""
        chunks = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, rank, request_id = heapq.heappop(self._deadlines)
            sequence = self._sequences.get(request_id)
            if sequence is not None and sequence.rank == rank:
                chunks.append(self._end_early(sequence, "timeout"))
        return chunks

    def _end_early(self, sequence: Sequence, finish_reason: FinishReason) -> OutputChunk:
        chunk = OutputChunk(sequence.request_id, text=sequence.text.finish())
        return self._end(sequence, finish_reason, chunk)

    def _fail_step(self, batch: list[Scheduled], error: Exception) -> list[OutputChunk]:
        sequences = [scheduled.sequence for scheduled in batch] or list(self._sequences.values())
        return self._fail_rows(sequences, error)

    def _fail_rows(self, sequences: list[Sequence], error: Exception) -> list[OutputChunk]:
        logger.error("a step failed", exc_info=error)
        self._stats.num_failed_steps += 1
        message = f"the model could not compute a step ({type(error).__name__}); see the log"
        return [self._fail(sequence, message) for sequence in sequences]

    def _fail(self, sequence: Sequence, message: str) -> OutputChunk:
        # What it computed is not to be trusted: nobody may find it as a prefix.
        self._scheduler.pool.withdraw(sequence.block_table)
        return self._end(sequence, "error", OutputChunk(sequence.request_id, error=message))

    def _end(
        self,
        sequence: Sequence,
        finish_reason: FinishReason,
        chunk: OutputChunk,
        *,
        stop_reason: str | int | None = None,
    ) -> OutputChunk:
        """Let go of a sequence; returns its chunk completed as the last one."""
        self._scheduler.finish(sequence)
        self._speculator.forget(sequence)
        self._sequences.pop(sequence.request_id, None)
        self._stats.count_end(finish_reason)
        return dataclasses.replace(
            chunk,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
            usage=sequence.usage(),
            timings=sequence.timings(),
        )

    def _note_first_runs(self, batch: list[Scheduled], now_s: float) -> None:
        for scheduled in batch:
            sequence = scheduled.sequence
            if sequence.first_run_s is None:
                sequence.first_run_s = now_s
                sequence.num_cached_tokens = sequence.num_computed_tokens
                self._stats.num_prompt_tokens += sequence.num_prompt_tokens
                self._stats.num_cached_tokens += sequence.num_cached_tokens


def _logprobs(token: SampledToken) -> tuple[TokenLogprob, ...] | None:
    if token.logprob is None:
        return None
    return (TokenLogprob(token.token_id, token.logprob, token.top_logprobs or ()),)
