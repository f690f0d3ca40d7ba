"""The engine: sequences in, chunks of output out, one step at a time.

Not thread-safe, by design: one loop owns it (see `thread.py`) and everybody
else sends that loop messages.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from collections.abc import Sequence as Collection

from quintet.backends.base import BLOCK_SIZE, Executor, Float32Array
from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.block_pool import BlockPool
from quintet.engine.embedder import Embedder
from quintet.engine.embedding import EmbeddingRequest, EmbeddingSpec
from quintet.engine.endings import Endings, message_of, uncomputed
from quintet.engine.meter import Meter
from quintet.engine.output import OutputChunk, PromptLogprobs, TokenLogprob
from quintet.engine.prompt_scoring import score_prompts
from quintet.engine.request import Request
from quintet.engine.row_sampling import sample_sequences
from quintet.engine.scheduler import Scheduled, Scheduler
from quintet.engine.sequence import Sequence, Status
from quintet.engine.speculation.speculator import Drafter, Speculator
from quintet.engine.stats import EngineStats
from quintet.engine.step_builder import build_step
from quintet.engine.text import Detokenizer, TextStream
from quintet.engine.verification import Row, first_rows, logits_of
from quintet.errors import RequestError
from quintet.parsing.thinking import Thinking
from quintet.sampling.breakers import TokenSequences
from quintet.sampling.grammar import GrammarCompiler
from quintet.sampling.matcher import ConstraintMatcher
from quintet.sampling.sampler import RowSampler, SampledToken
from quintet.sampling.stop import StopChecker

logger = logging.getLogger(__name__)

_AUDIT_EVERY_S = 60.0  # at the earliest, when nothing is left to do


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
        drafter: guesses tokens ahead; the engine closes it.  None: n-gram lookup where
            the config asks for it.
        block_bytes: of a KV block, for the statistics.
        grammars: compiles the requests' constraints; without it they are refused.
        embedding: what the model does with whole texts; None: nothing.
        can_generate: whether its output is logits, so that prompts can be continued.

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
        drafter: Drafter | None = None,
        block_bytes: int = 0,
        grammars: GrammarCompiler | None = None,
        embedding: EmbeddingSpec | None = None,
        can_generate: bool = True,
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
        num_columns = executor.vocab_size
        known_tokens = vocab_size or num_columns
        self.limits = EngineLimits(
            vocab_size=min(num_columns, known_tokens) if can_generate else known_tokens,
            max_model_len=max_model_len,
            max_num_requests=config.max_num_seqs + config.max_queue,
            max_num_seqs=config.max_num_seqs,
            eos_ids=eos_ids,
            embedding=embedding,
            can_generate=can_generate,
        )
        self._executor = executor
        self._new_detokenizer = new_detokenizer
        self._eos_ids = eos_ids
        self._grammars = grammars
        self._resolve_breakers = resolve_breakers
        self._seeds = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        pool = BlockPool(executor.num_blocks, enable_prefix_cache=config.enable_prefix_cache)
        self._scheduler = Scheduler(config, pool, executor.max_logits_rows)
        self._speculator = Speculator(config, self._scheduler, drafter)
        self._embedder = Embedder(
            executor, pool, is_causal=embedding is None or embedding.is_causal
        )
        self._max_tokens = config.max_num_batched_tokens
        self._max_mixed_tokens = config.max_num_mixed_prefill_tokens
        self._meter = Meter(num_blocks=executor.num_blocks, block_bytes=block_bytes)
        self._audited_at_s = time.monotonic()
        self._endings = Endings(self._scheduler, self._speculator, self._meter, self._audit_idly)

    @property
    def has_work(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self._endings.groups) or self._embedder.has_work

    def new_matcher(self, request: Request) -> ConstraintMatcher | None:
        """Compile a request's constraint, if it has one; what bounds its thought, if that is
        bounded.  Safe to call from any thread.

        Raises:
            RequestError: it does not compile within the limits.
        """
        constraint = request.params.constraint
        max_thinking_tokens = request.max_thinking_tokens
        if request.thinking is Thinking.NONE:
            max_thinking_tokens = None
        if constraint is None and max_thinking_tokens is None:
            return None
        if self._grammars is not None:
            return self._grammars.matcher(constraint, request.thinking, max_thinking_tokens)
        if constraint is not None:
            raise constraint.refusal("this engine has no tokenizer to compile it for")
        raise RequestError("expected a model with a tokenizer", parameter="max_thinking_tokens")

    def add(self, request: Request, matcher: ConstraintMatcher | None = None) -> None:
        """Queue a request.

        Args:
            matcher: what `new_matcher` made for it, so that it need not be compiled here.

        Raises:
            RequestError: it can never be served, or its id is in use.
        """
        self.limits.check(request)
        matcher = matcher or self.new_matcher(request)
        if request.request_id in self._endings.groups:
            raise RequestError(f"{request.request_id!r} is in use", parameter="request_id")
        params = request.params
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        sequences = [
            self._new_sequence(
                request, index, seed + index, matcher and (matcher.copy() if index else matcher)
            )
            for index in range(params.n)
        ]
        self._endings.add(request, sequences)
        self._scheduler.add(sequences[0])
        self._meter.totals.num_requests += 1

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

    def embed(self, request: EmbeddingRequest) -> OutputChunk | None:
        """Queue an embedding request, for loops: its last chunk if that fails."""
        try:
            self.limits.check_embedding(request)
            if request.request_id in self._endings.groups or request.request_id in self._embedder:
                raise RequestError(f"{request.request_id!r} is in use", parameter="request_id")
            self._embedder.add(request)
            self._meter.totals.num_requests += 1
        except RequestError as error:
            return OutputChunk(request.request_id, finish_reason="error", error=str(error))
        return None

    def step(self) -> list[OutputChunk]:
        """A step of the sequences, then a pass of texts to embed, as far as there are any."""
        chunks = self._step_sequences() if self._endings.groups else []
        if self._embedder.has_work:
            # Beside sequences a pass is as short as a prompt's chunk would be.
            vectors = self._embedder.step(
                self._max_mixed_tokens if self._endings.groups else self._max_tokens
            )
            for chunk in vectors:
                self._meter.embedded(chunk)
            chunks += vectors
        return chunks

    def _step_sequences(self) -> list[OutputChunk]:
        """End what is late, schedule, run, sample, hand out.

        Whatever the model raises ends only the sequences that it raises for.

        Returns:
            A chunk for each token, in the order of each sequence's, and for each early end.
        """
        started_s = time.monotonic()
        late = self._endings.end_late(started_s)
        if not self._endings.groups:
            return late
        return late + self._step(started_s)

    def abort(self, request_id: str) -> OutputChunk | None:
        """End a request and all its answers now; None if it is unknown or has ended."""
        if request_id in self._embedder:
            chunk = self._embedder.abort(request_id)
            self._meter.embedded(chunk)
            return chunk
        return (
            self._endings.end_early(request_id, "abort")
            if request_id in self._endings.groups
            else None
        )

    def stats(self) -> EngineStats:
        """The counters as they are now; the caller's to keep."""
        pool = self._scheduler.pool
        return self._meter.read(
            num_waiting=self._scheduler.num_waiting,
            num_running=self._scheduler.num_running + len(self._embedder),
            num_preemptions=self._scheduler.num_preemptions,
            num_steps=self._scheduler.num_steps,
            num_used_blocks=pool.num_blocks - pool.num_available,
            num_cached_blocks=pool.num_cached,
        )

    def find_fault(self) -> str | None:
        """`audit` for production: counted, and the account that is wrong as text."""
        self._audited_at_s = time.monotonic()
        self._meter.totals.num_audits += 1
        try:
            self.audit()
        except AssertionError as fault:
            logger.error("an audit failed: %s", fault)
            self._meter.totals.num_failed_audits += 1
            return str(fault)
        return None

    def _audit_idly(self) -> None:
        if time.monotonic() - self._audited_at_s > _AUDIT_EVERY_S:
            self.find_fault()

    def audit(self) -> None:
        """Check the books: every block is accounted for, every sequence is in its place.

        Raises:
            AssertionError: says which account is wrong.
        """
        self._scheduler.audit()
        started = {s for group in self._endings.groups.values() for s in group.started}
        if set(self._scheduler) != started:
            raise AssertionError("the scheduler and the engine know different sequences")

    def close(self) -> None:
        """Drop every request and free the model.  Idempotent."""
        try:
            for chunk in self._embedder.close():
                self._meter.embedded(chunk)
            for request_id in tuple(self._endings.groups):
                self.abort(request_id)
        finally:
            self._speculator.close()
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
                dry_breakers=breakers,
            ),
            text=TextStream(
                self._new_detokenizer(request.prompt_token_ids, request.visible_token_ids),
                StopChecker(params.stop_strings, include_stop=params.include_stop_str_in_output),
                params.min_tokens,
            ),
            eos_ids=frozenset() if params.ignore_eos else self._eos_ids,
            max_total_tokens=max_total_tokens,
            max_model_len=self.limits.max_model_len,
            index=index,
            matcher=matcher,
        )

    def _step(self, started_s: float) -> list[OutputChunk]:
        batch = self._scheduler.schedule()
        failures = self._scheduler.take_failures()
        if failures:
            return self._endings.fail_unscheduled(failures)
        if not batch:  # a leak of blocks would do it
            return self._endings.fail_all(RuntimeError("no sequence could be scheduled"))
        self._note_first_runs(batch, started_s)
        return self._compute(self._speculator.extend(batch), started_s)

    def _compute(
        self, batch: list[Scheduled], started_s: float, *, is_part: bool = False
    ) -> list[OutputChunk]:
        """Run a step, or a part of one that raised, and sample from it."""
        run_s = time.monotonic()
        try:
            logits = self._executor.run(build_step(batch))
            logits, unscored = score_prompts(
                batch, logits, self.limits.vocab_size, self._executor.threads
            )
        except Exception as error:  # noqa: BLE001 - one step's failure must not be the engine's
            return self._isolate(batch, error, started_s, is_part=is_part)
        finally:
            self._meter.computed(started_s, len(batch))
        rows = first_rows(batch)
        self._scheduler.commit(batch)
        chunks = [
            self._endings.fail(sequence, message_of("numerical"))
            for sequence in unscored
            if sequence.status is not Status.FINISHED  # with another answer, which failed
        ]
        chunks += self._sample_rows(rows, logits)
        self._settle(batch, time.monotonic() - run_s)
        return chunks

    def _isolate(
        self, batch: list[Scheduled], error: Exception, started_s: float, *, is_part: bool
    ) -> list[OutputChunk]:
        """Compute a step that raised again, in halves: who raises alone ends, nobody else.

        Nothing of it has been counted as computed, and what it wrote are the slots behind
        that, of blocks that nobody shares: the second time they get what belongs there.
        Guesses are left out: they may be what it cannot stand, and cost no answer then.
        Of n sequences one that raises takes about 2 log2(n) runs, all of them 2 n.
        """
        if not is_part:
            logger.error("a step failed; its sequences are computed apart", exc_info=error)
            self._meter.totals.num_failed_steps += 1
        if len(batch) == 1 and not batch[0].draft_ids:
            sequence = batch[0].sequence
            logger.error("%s cannot be computed", sequence.request_id, exc_info=error)
            return [self._endings.fail(sequence, uncomputed(error))]
        middle = (len(batch) + 1) // 2
        chunks: list[OutputChunk] = []
        for part in (batch[:middle], batch[middle:]):
            # Some have perhaps ended with another answer of their request, which failed.
            going = [
                self._without_guesses(scheduled)
                for scheduled in part
                if scheduled.sequence.status is Status.RUNNING
            ]
            if going:
                chunks += self._compute(going, started_s, is_part=True)
        return chunks

    def _without_guesses(self, scheduled: Scheduled) -> Scheduled:
        if not scheduled.draft_ids:
            return scheduled
        self._scheduler.trim(scheduled.sequence)
        return Scheduled(scheduled.sequence, scheduled.num_tokens, scheduled.samples)

    def _sample_rows(self, rows: list[Row], logits: Float32Array) -> list[OutputChunk]:
        """Sample from each row, then from those that right guesses have made count."""
        chunks: list[OutputChunk] = []
        # A sequence may have ended with another answer of its request, which failed.
        while rows := [row for row in rows if row.sequence.status is Status.RUNNING]:
            sequences = [row.sequence for row in rows]
            tokens, failed = sample_sequences(
                sequences,
                logits_of(rows, logits),
                self.limits.vocab_size,
                self._executor.threads,
            )
            following = []
            for row, token in zip(rows, tokens, strict=True):
                sequence = row.sequence
                if sequence.status is not Status.RUNNING:
                    continue
                if failed and sequence in failed:
                    chunks.append(self._endings.fail(sequence, failed[sequence]))
                    continue
                chunk = self._advance(sequence, token)
                chunks.append(chunk)
                next_row = row.after(token.token_id) if row.guesses else None
                if chunk.finish_reason is None and next_row is not None:
                    self._scheduler.advance(sequence, 1)
                    self._meter.totals.num_accepted_tokens += 1
                    following.append(next_row)
            rows = following
        return chunks

    def _settle(self, batch: list[Scheduled], seconds: float) -> None:
        """Clear up after guesses, right or wrong."""
        for scheduled in batch:
            if scheduled.draft_ids:
                self._meter.totals.num_draft_tokens += len(scheduled.draft_ids)
                if scheduled.sequence.status is Status.RUNNING:
                    self._scheduler.trim(scheduled.sequence)
        self._speculator.record(batch, seconds)

    def _advance(self, sequence: Sequence, token: SampledToken) -> OutputChunk:
        """Take in a sequence's sampled token; its failure is nobody else's."""
        if token.error == "constraint" and sequence.matcher is not None:
            return self._endings.fail(
                sequence, f"no token fits the constraint ({sequence.matcher.error})"
            )
        if token.error is not None:
            return self._endings.fail(sequence, message_of(token.error))
        try:
            return self._append(sequence, token)
        except Exception as error:
            logger.error("a token could not be taken in", exc_info=error)
            return self._endings.fail(sequence, f"token {token.token_id}: {error}")

    def _append(self, sequence: Sequence, token: SampledToken) -> OutputChunk:
        """Append a token, and let go of the sequence if it is the last."""
        params = sequence.request.params
        prompt_logprobs: PromptLogprobs | None = None
        echo = ""
        is_first = sequence.first_token_s is None
        self._meter.token(sequence)
        if is_first:
            for other in self._endings.groups[sequence.request_id].release():
                self._scheduler.add(other)
            if params.prompt_logprobs is not None and sequence.index == 0:
                prompt_logprobs = (None, *sequence.prompt_logprobs)
            if params.echo:
                echo = self._prompt_text(sequence.request)
        text, end = sequence.append(token.token_id)
        logprobs: tuple[TokenLogprob, ...] | None = None
        if token.logprob is not None:
            logprobs = (TokenLogprob(token.token_id, token.logprob, token.top_logprobs or ()),)
        chunk = OutputChunk(
            sequence.request_id,
            echo + text if echo else text,
            (token.token_id,),
            logprobs,
            index=sequence.index,
            prompt_logprobs=prompt_logprobs,
        )
        if end is not None:
            return self._endings.end(sequence, end, chunk)
        if sequence.slide():
            self._speculator.forget(sequence)
            self._scheduler.requeue(sequence)
        return chunk

    def _prompt_text(self, request: Request) -> str:
        detokenizer = self._new_detokenizer((), frozenset())
        text = "".join(detokenizer.push(token_id) for token_id in request.prompt_token_ids)
        return text + detokenizer.flush()

    def _note_first_runs(self, batch: list[Scheduled], now_s: float) -> None:
        for scheduled in batch:
            sequence = scheduled.sequence
            if sequence.first_run_s is None:
                sequence.first_run_s = now_s
                self._endings.has_begun(sequence.request_id)
                sequence.num_cached_tokens = sequence.num_computed_tokens
                self._meter.first_run(sequence, now_s)
