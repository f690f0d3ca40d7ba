"""From logits to tokens: the native sampler, one per sequence, many in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quintet import _native
from quintet.sampling.breakers import TokenSequences
from quintet.sampling.params import SamplingParams


@dataclass(slots=True)  # not frozen: there is one for each token, and that takes longer
class SampledToken:
    """One row's outcome.

    Args:
        token_id: the token chosen; negative when there is an error.
        logprob: log-softmax of the model's own logits at `token_id`, in nats; None unless asked
            for.
        top_logprobs: (token id, logprob) of the most probable tokens, most probable first; None
            unless asked for.
        error: "numerical" when the row holds NaN or positive infinity, or nothing above negative
            infinity; "constraint" when its mask leaves nothing above negative infinity; "memory"
            when there was none to sample it.  Nothing was accepted then.
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] | None = None
    error: str | None = None


class RowSampler:
    """The sampling state of one sequence: parameters, token history, place in the random stream.

    Not for use by two threads at a time.

    Args:
        params: of the request.
        vocab_size: number of tokens; further columns of the logits are padding.
        eos_ids: tokens that end a sequence; min_tokens holds them back unless ignore_eos is set.
        prompt_ids: the prompt, which repetition_penalty counts and DRY looks back at.
        seed: of the random stream; taken modulo 2**64.  params.seed where the request has one.
        dry_breakers: what spells params.dry_sequence_breakers; see `DryBreakers`.

    Raises:
        RequestError: params name a token that the vocabulary does not have.
        ValueError: eos_ids, prompt_ids or dry_breakers do.
    """

    __slots__ = ("_native",)

    def __init__(
        self,
        params: SamplingParams,
        *,
        vocab_size: int,
        eos_ids: frozenset[int],
        prompt_ids: Sequence[int],
        seed: int,
        dry_breakers: TokenSequences | None = None,
    ) -> None:
        params.check_vocab(vocab_size)
        ending_ids = set(params.stop_token_ids)
        if not params.ignore_eos:
            ending_ids |= eos_ids
        self._native = _native.RowSampler(
            _native_params(params, sorted(ending_ids), dry_breakers),
            vocab_size=vocab_size,
            prompt_ids=prompt_ids if _reads_prompt(params) else (),
            seed=seed % 2**64,
        )

    @property
    def num_accepted(self) -> int:
        """Tokens generated so far, which is the next one's place in the random stream."""
        return self._native.num_accepted

    def accept(self, token_id: int) -> None:
        """Record a token as generated without sampling it, as when a sequence is rebuilt.

        `sample` has done so for the tokens it returned.  Mirostat learns nothing from it.

        Raises:
            ValueError: the vocabulary does not have it.
        """
        self._native.accept(token_id)

    def distribution(
        self, logits: NDArray[np.float32], mask: NDArray[np.uint32] | None = None
    ) -> dict[int, float]:
        """Token id to probability of every token that the next draw from `logits` can give.

        Whether XTC acts on it is decided by the seed and is part of the answer.

        logits: [>= vocab_size] float32, contiguous, writable; left as it was.
        mask: as for `sample`.

        Empty where `sample` would report an error.
        """
        return dict(self._native.distribution(logits, mask))


Mask: TypeAlias = NDArray[np.uint32]
"""A bit per token that may come: token i is bit i % 32 of word i // 32."""

_ERRORS: Final = {-1: "numerical", -2: "constraint", -3: "memory"}


def sample(
    logits: NDArray[np.float32],
    rows: Sequence[RowSampler],
    masks: Sequence[Mask | None] = (),
    threads: _native.ThreadPool | None = None,
) -> list[SampledToken]:
    """Choose and accept one token for each row of logits, without the GIL.

    A row's result depends on that row, its mask, its history and its seed only.

    Args:
        logits: [len(rows), >= vocab_size] float32, writable, each row contiguous.  Edited while the
            call runs, and as it was when it returns.
        rows: a sampler per row.
        masks: none, or one per row, [>= ceil(vocab_size / 32)] uint32, contiguous; None where every
            token may come.
        threads: to share the rows, where they are enough; nothing else may run on them meanwhile.

    Raises:
        TypeError, ValueError: the array is not as described.
    """
    return [
        SampledToken(token_id, logprob, top_logprobs, _ERRORS.get(token_id))
        for token_id, logprob, top_logprobs in _native.sample(
            logits, tuple([row._native for row in rows]), tuple(masks), threads
        )
    ]


@dataclass(frozen=True, slots=True)
class TokenScore:
    """What a row of logits says of one token.

    Args:
        logprob: log-softmax of the logits at the token, in nats.
        top: (token id, logprob) of the most probable tokens, most probable first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]


def score(
    logits: NDArray[np.float32],
    token_ids: Sequence[int],
    *,
    vocab_size: int,
    num_top: int,
    threads: _native.ThreadPool | None = None,
) -> list[TokenScore | None]:
    """The log-probability of one given token per row, without the GIL.

    Args:
        logits: [len(token_ids), >= vocab_size] float32, each row contiguous; further columns are
            padding.
        token_ids: a token per row.
        num_top: of the most probable tokens, this many are listed.
        threads: to share the rows; nothing else may run on them meanwhile.

    Returns:
        A score per row; None where the row holds NaN or positive infinity, or nothing above
        negative infinity.

    Raises:
        TypeError, ValueError: the array or the ids are not as described.
    """
    scores = _native.score(
        logits, vocab_size=vocab_size, token_ids=token_ids, num_top=num_top, threads=threads
    )
    return [None if found is None else TokenScore(*found) for found in scores]


def _reads_prompt(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1.0 or params.dry_multiplier > 0.0


def _native_params(
    params: SamplingParams, ending_ids: list[int], dry_breakers: TokenSequences | None
) -> _native.RowParams:
    native = _native.RowParams()
    for name in _SAME_NAME:
        setattr(native, name, getattr(params, name))
    native.top_k = max(params.top_k, 0)
    native.logit_bias = sorted((params.logit_bias or {}).items())
    native.ending_ids = ending_ids
    native.num_logprobs = -1 if params.logprobs is None else params.logprobs
    native.order = [_native.Stage[stage.upper()] for stage in params.sampler_order]
    if params.dry_multiplier > 0.0:
        dry = _native.DryParams()
        dry.multiplier = params.dry_multiplier
        dry.base = params.dry_base
        dry.allowed_length = params.dry_allowed_length
        dry.last_n = params.dry_penalty_last_n
        dry.breakers = dry_breakers
        native.dry = dry
    return native


_SAME_NAME = (
    "temperature",
    "dynatemp_range",
    "dynatemp_exponent",
    "top_n_sigma",
    "typical_p",
    "top_p",
    "min_p",
    "xtc_probability",
    "xtc_threshold",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "penalty_last_n",
    "min_tokens",
)
