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
from collections.abc import Sequence as Collection
from typing import Any

from quintet.backends.base import BLOCK_SIZE, Executor
from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.block_pool import BlockPool
from quintet.engine.group import SequenceGroup
from quintet.engine.logits_processors import apply_logits_processors
from quintet.engine.output import FinishReason, OutputChunk, PromptLogprobs, TokenLogprob
from quintet.engine.prompt_scoring import score_prompts
from quintet.engine.request import Request
from quintet.engine.scheduler import Scheduled, Scheduler
from quintet.engine.sequence import Sequence, Status
from quintet.engine.stats import EngineStats
from quintet.engine.step_builder import build_step
from quintet.engine.text import Detokenizer, TextStream
from quintet.errors import RequestError
from quintet.sampling.breakers import TokenSequences
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
        new_detokenizer: makes the detokenizer of a new sequence, given its prompt and the control
            tokens that are to be visible.
        eos_ids: tokens that end an answer unless `SamplingParams.ignore_eos`.
        max_model_len: tokens of prompt and answer together.
        vocab_size: tokens there are; further columns of the logits are padding.  None:
            all of them are tokens.
        resolve_breakers: the token sequences that spell DRY's sequence breakers, given those.
        config: batching options; its `max_model_len` and `kv_cache_bytes` have been
            decided by whoever made the executor.
        grammars: compiles the requests' constraints; without it they are refused.

    Raises:
        ValueError: the KV cache cannot hold one sequence of `max_model_len` tokens, or
            the executor's steps are smaller than the budget, or have fewer rows of logits
            than there may be sequences.
    """

    def __init__(
        self,
        executor: Executor,
        new_detokenizer: Callable[[Collection[int], frozenset[int]], Detokenizer],
        *,
        eos_ids: frozenset[int],
        max_model_len: int,
        vocab_size: int | None = None,
        resolve_breakers: Callable[[Collection[str]], TokenSequences | None] = lambda _: None,
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
        if config.max_num_seqs > executor.max_logits_rows:
            raise ValueError(
                f"expected logits of up to {config.max_num_seqs} rows, "
                f"the executor gives {executor.max_logits_rows}"
            )
        self.limits = EngineLimits(
            vocab_size=min(executor.vocab_size, vocab_size or executor.vocab_size),
            max_model_len=max_model_len,
            max_num_requests=config.max_num_seqs + config.max_queue,
            eos_ids=eos_ids,
        )
        self._executor = executor
        self._new_detokenizer = new_detokenizer
        self._eos_ids = eos_ids
        self._grammars = grammars
        self._resolve_breakers = resolve_breakers
        self._seeds = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        pool = BlockPool(executor.num_blocks, enable_prefix_cache=config.enable_prefix_cache)
        self._scheduler = Scheduler(config, pool, executor.max_logits_rows)
        self._groups: dict[str, SequenceGroup] = {}  # of unfinished requests
        self._stats = EngineStats(num_blocks=executor.num_blocks)

    @property
    def has_work(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self._groups)

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
        if request.request_id in self._groups:
            raise RequestError(f"{request.request_id!r} is in use", parameter="request_id")
        params = request.params
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        sequences = [
            self._new_sequence(
                request, index, seed + index, matcher and (matcher.copy() if index else matcher)
            )
            for index in range(params.n)
        ]
        self._groups[request.request_id] = SequenceGroup(sequences)
        self._scheduler.add(sequences[0])
        self._stats.num_requests += 1

    def start(
        self, request: Request, matcher: ConstraintMatcher | None = None
    ) -> OutputChunk | None:
        """`add` for loops, which one bad request must not end: its last chunk if it fails."""
        try:
            self.add(request, matcher)
            return None
        except Exception as error:
            logger.error("a request could not be started", exc_info=error)
            text = f"the request could not be started: {error}"
            return OutputChunk(request.request_id, finish_reason="error", error=text)

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
            tokens, failed = self._run(batch)
        except Exception as error:  # noqa: BLE001 - one step's failure must not be the engine's
            return self._fail_step(batch, error)
        finally:
            self._stats.last_step_at_s = time.monotonic()
            self._stats.last_step_s = self._stats.last_step_at_s - started_s
        self._scheduler.commit(batch)
        chunks: list[OutputChunk] = []
        for sequence, message in failed.items():
            if sequence.status is not Status.FINISHED:  # with another answer, which failed
                chunks.append(self._fail(sequence, message))
        for sequence, token in tokens:
            if sequence.status is not Status.FINISHED:
                chunks.append(self._advance(sequence, token))
        return chunks

    def abort(self, request_id: str) -> OutputChunk | None:
        """End a request and all its answers now; None if it is unknown or has ended."""
        group = self._groups.get(request_id)
        if group is None:
            return None
        first = group.unfinished[0]
        self._drop(group, but=first)
        return self._end(first, "abort", _chunk(first, text=first.text.finish()))

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
        started = {s for group in self._groups.values() for s in group.started}
        if set(self._scheduler) != started:
            raise AssertionError("the scheduler and the engine know different sequences")

    def close(self) -> None:
        """Drop every request and free the model.  Idempotent."""
        try:
            for request_id in tuple(self._groups):
                self.abort(request_id)
        finally:
            self._executor.close()

    def _new_sequence(
        self, request: Request, index: int, seed: int, matcher: ConstraintMatcher | None
    ) -> Sequence:
        params = request.params
        breakers: TokenSequences | None = None
        if params.dry_multiplier > 0:
            breakers = self._resolve_breakers(params.dry_sequence_breakers)
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
                dry_breakers=breakers,
            ),
            text=TextStream(
                self._new_detokenizer(request.prompt_token_ids, request.visible_token_ids),
                StopChecker(params.stop_strings, include_stop=params.include_stop_str_in_output),
                params.min_tokens,
            ),
            eos_ids=frozenset() if params.ignore_eos else self._eos_ids,
            max_total_tokens=max_total_tokens,
            index=index,
            matcher=matcher,
        )

    def _run(
        self, batch: list[Scheduled]
    ) -> tuple[list[tuple[Sequence, SampledToken]], dict[Sequence, str]]:
        """Compute the batch's tokens and sample for those sequences that have caught up.

        Returns:
            A token per sequence that sampled; and the sequences that failed, with the reason.
        """
        if not batch:
            raise RuntimeError("no sequence could be scheduled")  # a leak of blocks would do it
        vocab_size = self.limits.vocab_size
        logits = self._executor.run(build_step(batch))
        logits, unscored = score_prompts(batch, logits, vocab_size)
        failed = dict.fromkeys(unscored, _message("numerical"))
        sequences = [scheduled.sequence for scheduled in batch if scheduled.samples]
        if not sequences:  # all in the middle of a prompt
            return [], failed
        failed |= apply_logits_processors(sequences, logits, vocab_size)
        masks = [sequence.mask() for sequence in sequences]
        tokens = sample(logits, [sequence.sampler for sequence in sequences], masks)
        return list(zip(sequences, tokens, strict=True)), failed

    def _advance(self, sequence: Sequence, token: SampledToken) -> OutputChunk:
        """Take in a sequence's sampled token; its failure is nobody else's."""
        if token.error == "constraint" and sequence.matcher is not None:
            return self._fail(sequence, f"no token fits the constraint ({sequence.matcher.error})")
        if token.error is not None:
            return self._fail(sequence, _message(token.error))
        try:
            return self._append(sequence, token)
        except Exception as error:
            logger.error("a token could not be taken in", exc_info=error)
            return self._fail(sequence, f"token {token.token_id}: {error}")

    def _append(self, sequence: Sequence, token: SampledToken) -> OutputChunk:
        """Append a token, and let go of the sequence if it is the last."""
        params = sequence.request.params
        prompt_logprobs: PromptLogprobs | None = None
        echo = ""
        if sequence.first_token_s is None:
            sequence.first_token_s = time.monotonic()
            for other in self._groups[sequence.request_id].release():
                self._scheduler.add(other)
            if params.prompt_logprobs is not None and sequence.index == 0:
                prompt_logprobs = (None, *sequence.prompt_logprobs)
            if params.echo:
                echo = self._prompt_text(sequence.request)
        self._stats.num_generated_tokens += 1
        text, finish_reason, stop_reason = sequence.append(token.token_id)
        chunk = _chunk(
            sequence,
            text=echo + text,
            token_ids=(token.token_id,),
            logprobs=_logprobs(token),
            prompt_logprobs=prompt_logprobs,
        )
        if finish_reason is None:
            return chunk
        return self._end(sequence, finish_reason, chunk, stop_reason=stop_reason)

    def _fail_step(self, batch: list[Scheduled], error: Exception) -> list[OutputChunk]:
        logger.error("a step failed", exc_info=error)
        self._stats.num_failed_steps += 1
        sequences = [scheduled.sequence for scheduled in batch] or list(self._scheduler)
        message = f"the model could not compute a step ({type(error).__name__}); see the log"
        return [
            self._fail(sequence, message)
            for sequence in sequences
            if sequence.status is not Status.FINISHED
        ]

    def _fail(self, sequence: Sequence, message: str) -> OutputChunk:
        # What it computed is not to be trusted: nobody may find it as a prefix.
        self._scheduler.pool.withdraw(sequence.block_table)
        self._drop(self._groups[sequence.request_id], but=sequence)
        return self._end(sequence, "error", _chunk(sequence, error=message))

    def _drop(self, group: SequenceGroup, *, but: Sequence) -> None:
        """End all answers but one without a word."""
        for sequence in group.started:
            if sequence is not but:
                self._scheduler.finish(sequence)
        group.unfinished = [but]
        group.release()

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
        group = self._groups[sequence.request_id]
        group.unfinished.remove(sequence)
        if not group.unfinished:
            del self._groups[sequence.request_id]
            self._stats.count_end(finish_reason)
        return dataclasses.replace(
            chunk,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
            others_go_on=bool(group.unfinished),
            usage=sequence.usage(),
            timings=sequence.timings(),
        )

    def _prompt_text(self, request: Request) -> str:
        detokenizer = self._new_detokenizer((), frozenset())
        text = "".join(detokenizer.push(token_id) for token_id in request.prompt_token_ids)
        return text + detokenizer.flush()

    def _note_first_runs(self, batch: list[Scheduled], now_s: float) -> None:
        for scheduled in batch:
            sequence = scheduled.sequence
            if sequence.first_run_s is None:
                sequence.first_run_s = now_s
                sequence.num_cached_tokens = sequence.num_computed_tokens
                self._stats.num_prompt_tokens += sequence.num_prompt_tokens
                self._stats.num_cached_tokens += sequence.num_cached_tokens


def _message(kind: str) -> str:
    return f"the model gave no usable logits ({kind} error)"


def _chunk(sequence: Sequence, **content: Any) -> OutputChunk:
    return OutputChunk(sequence.request_id, index=sequence.index, **content)


def _logprobs(token: SampledToken) -> tuple[TokenLogprob, ...] | None:
    if token.logprob is None:
        return None
    return (TokenLogprob(token.token_id, token.logprob, token.top_logprobs or ()),)
