"""The engine: sequences in, chunks of output out, one step at a time.

Not thread-safe, by design: one loop owns it (see `thread.py`) and everybody
else sends that loop messages.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections.abc import Callable

from quintet.backends.base import BLOCK_SIZE, Executor
from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.block_pool import BlockPool
from quintet.engine.output import FinishReason, OutputChunk, TokenLogprob
from quintet.engine.request import Request
from quintet.engine.scheduler import Scheduled, Scheduler
from quintet.engine.sequence import Sequence
from quintet.engine.stats import EngineStats
from quintet.engine.step_builder import build_step
from quintet.engine.text import Detokenizer, TextStream
from quintet.errors import RequestError
from quintet.sampling.grammar import GrammarCompiler
from quintet.sampling.matcher import ConstraintMatcher
from quintet.sampling.sampler import RowSampler, SampledToken, sample
from quintet.sampling.stop import StopChecker

logger = logging.getLogger(__name__)


class Engine:
    """
    Continuous batching over one executor.

    Args:
        executor: the model and its KV cache; the engine closes it.
        new_detokenizer: makes the detokenizer of a new sequence, given its request.
        eos_ids: tokens that end an answer unless `SamplingParams.ignore_eos`.
        max_model_len: tokens of prompt and answer together.
        vocab_size: tokens there are; further columns of the logits are padding.  None:
            all of them are tokens.
        config: batching options; its `max_model_len` and `kv_cache_bytes` have been
            decided by whoever made the executor.
        grammars: compiles the requests' constraints; without it they are refused.

    Raises:
        ValueError: the KV cache cannot hold one sequence of `max_model_len` tokens, or
            the executor's steps are smaller than the budget.
    """

    def __init__(
        self,
        executor: Executor,
        new_detokenizer: Callable[[Request], Detokenizer],
        *,
        eos_ids: frozenset[int],
        max_model_len: int,
        vocab_size: int | None = None,
        config: EngineConfig | None = None,
        grammars: GrammarCompiler | None = None,
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
        self._grammars = grammars
        self._seeds = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        pool = BlockPool(executor.num_blocks, enable_prefix_cache=config.enable_prefix_cache)
        self._scheduler = Scheduler(config, pool)
        self._sequences: dict[str, Sequence] = {}
        self._stats = EngineStats(num_blocks=executor.num_blocks)

    @property
    def has_work(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self._sequences)

    def new_matcher(self, request: Request) -> ConstraintMatcher | None:
        """Compile a request's constraint, if it has one.  Safe to call from any thread.

        Raises:
            RequestError: it does not compile within the limits.
        """
        constraint = request.params.constraint
        if constraint is None:
            return None
        if self._grammars is None:
            raise constraint.refusal("this engine has no tokenizer to compile it for")
        return self._grammars.matcher(constraint, request.thinking)

    def add(self, request: Request, matcher: ConstraintMatcher | None = None) -> None:
        """Queue a request.

        Args:
            matcher: what `new_matcher` made for it, so that it need not be compiled here.

        Raises:
            RequestError: it can never be served, or its id is in use.
        """
        self.limits.check(request)
        matcher = matcher or self.new_matcher(request)
        if request.request_id in self._sequences:
            raise RequestError(f"{request.request_id!r} is in use", parameter="request_id")
        sequence = self._new_sequence(request, matcher)
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)
        self._stats.num_requests += 1

    def step(self) -> list[OutputChunk]:
        """Schedule, run, sample, hand out.

        Whatever the model raises ends the sequences of this step only.

        Returns:
            A chunk for each sequence that got a token or ended.
        """
        started_s = time.monotonic()
        batch = self._scheduler.schedule()
        self._note_first_runs(batch, started_s)
        try:
            tokens = self._run(batch)
        except Exception as error:  # noqa: BLE001 - one step's failure must not be the engine's
            return self._fail_step(batch, error)
        finally:
            self._stats.last_step_s = time.monotonic() - started_s
        self._scheduler.commit(batch)
        return [self._advance(sequence, token) for sequence, token in tokens]

    def abort(self, request_id: str) -> OutputChunk | None:
        """End a request now; None if it is unknown or has ended."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return None
        chunk = OutputChunk(request_id, text=sequence.text.finish())
        return self._end(sequence, "abort", chunk)

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
            self._executor.close()

    def _new_sequence(self, request: Request, matcher: ConstraintMatcher | None) -> Sequence:
        params = request.params
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        max_total_tokens = self.limits.max_model_len
        if params.max_tokens is not None:
            num_wanted = len(request.prompt_token_ids) + params.max_tokens
            max_total_tokens = min(max_total_tokens, num_wanted)
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
                self._new_detokenizer(request),
                StopChecker(params.stop_strings, include_stop=params.include_stop_str_in_output),
                params.min_tokens,
            ),
            eos_ids=frozenset() if params.ignore_eos else self._eos_ids,
            max_total_tokens=max_total_tokens,
            matcher=matcher,
        )

    def _run(self, batch: list[Scheduled]) -> list[tuple[Sequence, SampledToken]]:
        """Compute the batch's tokens and sample for those sequences that have caught up."""
        if not batch:
            raise RuntimeError("no sequence could be scheduled")  # a leak of blocks would do it
        logits = self._executor.run(build_step(batch))
        sequences = [scheduled.sequence for scheduled in batch if scheduled.samples]
        if not sequences:  # all in the middle of a prompt
            return []
        masks = [sequence.mask() for sequence in sequences]
        tokens = sample(logits, [sequence.sampler for sequence in sequences], masks)
        return list(zip(sequences, tokens, strict=True))

    def _advance(self, sequence: Sequence, token: SampledToken) -> OutputChunk:
        """Take in a sequence's sampled token; its failure is nobody else's."""
        if token.error == "constraint" and sequence.matcher is not None:
            return self._fail(sequence, f"no token fits the constraint ({sequence.matcher.error})")
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
        if finish_reason is None:
            return chunk
        return self._end(sequence, finish_reason, chunk, stop_reason=stop_reason)

    def _fail_step(self, batch: list[Scheduled], error: Exception) -> list[OutputChunk]:
        logger.error("a step failed", exc_info=error)
        self._stats.num_failed_steps += 1
        sequences = [scheduled.sequence for scheduled in batch] or tuple(self._sequences.values())
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
