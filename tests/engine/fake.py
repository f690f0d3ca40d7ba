"""A model without weights whose answers depend on everything the engine must get right.

Logits are drawn from a hash of the sequence's own history *as read back from
the paged cache* through its block table.  A block mixed up, freed early, shared
wrongly or skipped changes the answer; a row's neighbours do not.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from quintet.backends.base import BLOCK_SIZE, Float32Array, StepInput
from quintet.config import EngineConfig
from quintet.engine.embedding import EmbeddingSpec
from quintet.engine.engine import Engine
from quintet.engine.output import OutputChunk
from quintet.engine.request import Overflow, Priority, Request
from quintet.engine.sequence import Sequence
from quintet.engine.speculation.payoff import StepCost
from quintet.engine.speculation.speculator import Drafter
from quintet.sampling.breakers import TokenSequences
from quintet.sampling.params import SamplingParams

VOCAB_SIZE = 32
HIDDEN_SIZE = 8
EOS = 0
NO_STEPS: frozenset[int] = frozenset()


class FakeExecutor:
    """An Executor; see the module.

    Args:
        raise_at: numbers of the steps (from 1) that raise.
        nan_at: numbers of the steps whose first row of logits is NaN.
        raises_for: says of a sequence's tokens, those of the step included, whether a step that
            it is in raises, once everything is written.
        error: what is raised.
        gate: when given, each step waits until the event is set.
        step_s: seconds that a step takes at least; for tests that act while one goes on.
    """

    vocab_size = VOCAB_SIZE
    hidden_size = HIDDEN_SIZE
    threads = None

    def __init__(
        self,
        *,
        num_blocks: int = 64,
        max_num_batched_tokens: int = 512,
        max_logits_rows: int = 64,
        raise_at: Collection[int] = NO_STEPS,
        nan_at: Collection[int] = NO_STEPS,
        raises_for: Callable[[list[int]], bool] | None = None,
        error: type[Exception] = RuntimeError,
        gate: threading.Event | None = None,
        step_s: float = 0.0,
    ) -> None:
        self.num_blocks = num_blocks
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_logits_rows = max_logits_rows
        self.raise_at = raise_at
        self.nan_at = nan_at
        self.raises_for = raises_for
        self.error = error
        self.num_lone_raises = 0  # steps of one sequence that raised
        self.gate = gate
        self.step_s = step_s
        self.steps: list[StepInput] = []
        self.num_closes = 0
        # What is never written differs from slot to slot, so reading it shows.
        self._cache = np.arange(num_blocks * BLOCK_SIZE, dtype=np.uint64) + np.uint64(1 << 40)

    def run(self, step: StepInput) -> Float32Array:
        expect(len(step.logits_rows) <= self.max_logits_rows, "rows of logits")
        return self._run(step, VOCAB_SIZE)

    def run_hidden(self, step: StepInput) -> Float32Array:
        return self._run(step, HIDDEN_SIZE)

    def _run(self, step: StepInput, width: int) -> Float32Array:
        if self.gate is not None:
            self.gate.wait()
        if self.step_s:
            time.sleep(self.step_s)
        self.steps.append(step)
        self._check(step)
        keys = step.token_ids.astype(np.uint64) * np.uint64(1 << 20)
        self._cache[step.slot_mapping] = keys + step.positions.astype(np.uint64)
        if len(self.steps) in self.raise_at or self._raises(step):
            self.num_lone_raises += len(step.seq_lens) == 1
            raise self.error("injected")
        logits = np.empty((len(step.logits_rows), width), np.float32)
        for i, row in enumerate(step.logits_rows):
            logits[i] = self._logits(step, int(row))[:width]
        if len(self.steps) in self.nan_at and len(logits):
            logits[0] = np.nan
        return logits

    def close(self) -> None:
        self.num_closes += 1

    def _logits(self, step: StepInput, row: int) -> Float32Array:
        sequence = int(np.searchsorted(step.cu_seqlens, row, side="right")) - 1
        places = np.arange(step.positions[row] + 1)
        blocks = step.block_tables[sequence, places // BLOCK_SIZE]
        history = self._cache[blocks * BLOCK_SIZE + places % BLOCK_SIZE]
        seed = int.from_bytes(hashlib.blake2b(history.tobytes(), digest_size=8).digest(), "little")
        return np.random.default_rng(seed).standard_normal(VOCAB_SIZE).astype(np.float32) * 4

    def _raises(self, step: StepInput) -> bool:
        histories = (self._history(step, i) for i in range(len(step.seq_lens)))
        return self.raises_for is not None and any(map(self.raises_for, histories))

    def _history(self, step: StepInput, sequence: int) -> list[int]:
        """A sequence's tokens as they stand in the cache."""
        places = np.arange(step.seq_lens[sequence])
        slots = step.block_tables[sequence, places // BLOCK_SIZE] * BLOCK_SIZE
        return [int(key) >> 20 for key in self._cache[slots + places % BLOCK_SIZE]]

    def _check(self, step: StepInput) -> None:
        """The contract of StepInput, in words of NumPy."""
        num_tokens, num_seqs = len(step.token_ids), len(step.seq_lens)
        expect(1 <= num_tokens <= self.max_num_batched_tokens, "tokens of a step")
        expect(step.cu_seqlens[0] == 0 and step.cu_seqlens[-1] == num_tokens, "cu_seqlens")
        expect(bool((np.diff(step.cu_seqlens) > 0).all()), "a sequence without tokens")
        expect(len(set(step.slot_mapping.tolist())) == num_tokens, "a slot written twice")
        expect(bool((np.diff(step.logits_rows) > 0).all()), "order of logits_rows")
        for array in vars_of(step):
            expect(array.dtype == np.int32, "dtype")
        for i in range(num_seqs):
            rows = slice(step.cu_seqlens[i], step.cu_seqlens[i + 1])
            places = step.positions[rows]
            expect(places[-1] + 1 == step.seq_lens[i], "seq_lens")
            expect(bool((np.diff(places) == 1).all()), "positions")
            blocks = step.block_tables[i, places // BLOCK_SIZE]
            expect(bool(((blocks >= 0) & (blocks < self.num_blocks)).all()), "block_tables")
            slots = blocks * BLOCK_SIZE + places % BLOCK_SIZE
            expect(bool((slots == step.slot_mapping[rows]).all()), "slot_mapping")


class FakeDetokenizer:
    """Token 1 is "b", 2 is "c" and so on; from 26 on, two letters ("ba", "bb"...)."""

    def push(self, token_id: int) -> str:
        return spell(token_id)

    def flush(self) -> str:
        return ""


def spell(token_id: int) -> str:
    """What FakeDetokenizer makes of a token."""
    low = chr(ord("a") + token_id % 26)
    return low if token_id < 26 else chr(ord("a") + token_id // 26) + low


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"the step breaks its contract: {what}")


def vars_of(step: StepInput) -> list[np.ndarray]:
    arrays = [getattr(step, name) for name in StepInput.__dataclass_fields__]
    return [array for array in arrays if array is not None]


def make_engine(
    executor: FakeExecutor | None = None,
    *,
    max_model_len: int | None = None,
    eos_ids: frozenset[int] = frozenset({EOS}),
    new_detokenizer: Callable[..., FakeDetokenizer] = lambda *_: FakeDetokenizer(),
    resolve_breakers: Callable[[Collection[str]], TokenSequences | None] = lambda _: None,
    drafter: Drafter | None = None,
    **options: object,
) -> Engine:
    """An engine over a fake executor; its context is the whole KV cache unless told.

    Guesses, where there are any, are taken to cost nothing, so that no test depends on time.
    """
    executor = FakeExecutor() if executor is None else executor
    config = EngineConfig(**{"seed": 0, **options})
    engine = Engine(
        executor,
        new_detokenizer,
        eos_ids=eos_ids,
        resolve_breakers=resolve_breakers,
        max_model_len=max_model_len or executor.num_blocks * BLOCK_SIZE,
        config=config,
        drafter=drafter,
        embedding=EmbeddingSpec(HIDDEN_SIZE, "last", is_causal=True, ranks="judge"),
    )
    engine._speculator._cost = Costless()
    return engine


class Costless(StepCost):
    """Every guess pays that ever comes true."""

    def bound(self, num_tokens: int, num_rows: int) -> float:
        return 0.01


class Prophet:
    """A Drafter that knows the answers beforehand and is wrong now and then.

    Args:
        answers: by request id.
        wrong_every: this often a guess is wrong, where it stands in the answer decides.
    """

    def __init__(
        self, answers: Mapping[str, Collection[int]], *, wrong_every: int = 5, k: int = 6
    ) -> None:
        self.answers = answers
        self.wrong_every = wrong_every
        self.max_draft_tokens = k
        self.is_free = True
        self.known: set[Sequence] = set()

    def propose(self, wanted: Iterable[tuple[Sequence, int]]) -> list[list[int]]:
        return [self._guess(sequence, k) for sequence, k in wanted]

    def forget(self, sequence: Sequence) -> None:
        self.known.discard(sequence)

    def close(self) -> None:
        self.known.clear()

    def _guess(self, sequence: Sequence, k: int) -> list[int]:
        self.known.add(sequence)
        start = sequence.num_generated_tokens
        answer = list(self.answers[sequence.request_id])[start : start + k]
        return [
            (token + (place % self.wrong_every == 0)) % VOCAB_SIZE
            for place, token in enumerate(answer, start + 1)
        ]


_ids = itertools.count()


def make_request(
    prompt: Iterable[int] | int,
    max_tokens: int | None = 8,
    *,
    request_id: str | None = None,
    priority: Priority = Priority.NORMAL,
    cache_salt: str = "",
    timeout_s: float | None = None,
    queue_timeout_s: float | None = None,
    overflow: Overflow = "error",
    num_keep_tokens: int = 0,
    **params: object,
) -> Request:
    """A greedy request that ignores EOS unless told; an int makes a prompt of that length."""
    if isinstance(prompt, int):
        prompt = [(7 * i * i + 3 * i + prompt) % VOCAB_SIZE for i in range(prompt)]
    options = {"temperature": 0.0, "ignore_eos": True, **params}
    return Request(
        request_id=f"request-{next(_ids)}" if request_id is None else request_id,
        prompt_token_ids=tuple(prompt),
        params=SamplingParams(max_tokens=max_tokens, **options),
        priority=priority,
        cache_salt=cache_salt,
        timeout_s=timeout_s,
        queue_timeout_s=queue_timeout_s,
        overflow=overflow,
        num_keep_tokens=num_keep_tokens,
    )


class Collected:
    """The chunks of one request, put together."""

    def __init__(self) -> None:
        self.chunks: list[OutputChunk] = []

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token for chunk in self.chunks for token in chunk.token_ids)

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def last(self) -> OutputChunk:
        return self.chunks[-1]


def run_all(engine: Engine, requests: Iterable[Request] = ()) -> dict[str, Collected]:
    """Add the requests, step until all work is done, auditing after every step."""
    for request in requests:
        engine.add(request)
    outputs: dict[str, Collected] = {}
    for _ in range(10_000):
        if not engine.has_work:
            return outputs
        for chunk in engine.step():
            outputs.setdefault(chunk.request_id, Collected()).chunks.append(chunk)
        engine.audit()
    raise AssertionError("the engine does not come to an end")


def run_alone(request: Request, **options: int) -> Collected:
    """The same request in an ample engine of its own: what it should give anywhere."""
    engine = make_engine(**options)
    return run_all(engine, [request])[request.request_id]
