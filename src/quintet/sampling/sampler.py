"""From logits to tokens: the native sampler, one per sequence, many in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quintet import _native
from quintet.sampling.params import SamplingParams


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One row's outcome.

    Args:
        token_id: the token chosen; negative when there is an error.
        logprob: log-softmax of the model's own logits at `token_id`, in nats; None unless asked
            for.
        top_logprobs: (token id, logprob) of the most probable tokens, most probable first; None
            unless asked for.
        error: "numerical" when the row holds NaN or positive infinity, or nothing above negative
            infinity; "constraint" when its mask leaves nothing above negative infinity.  Nothing
            was accepted then.
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
        prompt_ids: the prompt, which repetition_penalty counts.
        seed: of the random stream; taken modulo 2**64.  params.seed where the request has one.

    Raises:
        RequestError: params name a token that the vocabulary does not have.
        ValueError: eos_ids or prompt_ids do.
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
    ) -> None:
        params.check_vocab(vocab_size)
        ending_ids = set(params.stop_token_ids)
        if not params.ignore_eos:
            ending_ids |= eos_ids
        self._native = _native.RowSampler(
            vocab_size=vocab_size,
            seed=seed % 2**64,
            prompt_ids=prompt_ids if params.repetition_penalty != 1.0 else (),
            temperature=params.temperature,
            top_k=max(params.top_k, 0),
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            logit_bias=sorted((params.logit_bias or {}).items()),
            min_tokens=params.min_tokens,
            ending_ids=sorted(ending_ids),
            num_logprobs=-1 if params.logprobs is None else params.logprobs,
        )

    @property
    def num_accepted(self) -> int:
        """Tokens generated so far, which is the next one's place in the random stream."""
        return self._native.num_accepted

    def accept(self, token_id: int) -> None:
        """Record a token as generated without sampling it, as when a sequence is rebuilt.

        `sample` has done so for the tokens it returned.

        Raises:
            ValueError: the vocabulary does not have it.
        """
        self._native.accept(token_id)

    def distribution(
        self, logits: NDArray[np.float32], mask: NDArray[np.uint32] | None = None
    ) -> dict[int, float]:
        """Token id to probability of every token that the next draw from `logits` can give.

        logits: [>= vocab_size] float32, contiguous, writable; left as it was.
        mask: as for `sample`.

        Empty where `sample` would report an error.
        """
        return dict(self._native.distribution(logits, mask))


Mask: TypeAlias = NDArray[np.uint32]
"""A bit per token that may come: token i is bit i % 32 of word i // 32."""

_ERRORS: Final = {-1: "numerical", -2: "constraint"}


def sample(
    logits: NDArray[np.float32], rows: Sequence[RowSampler], masks: Sequence[Mask | None] = ()
) -> list[SampledToken]:
    """Choose and accept one token for each row of logits, without the GIL.

    A row's result depends on that row, its mask, its history and its seed only.

    Args:
        logits: [len(rows), >= vocab_size] float32, writable, each row contiguous.  Edited while the
            call runs, and as it was when it returns.
        rows: a sampler per row.
        masks: none, or one per row, [>= ceil(vocab_size / 32)] uint32, contiguous; None where every
            token may come.

    Raises:
        TypeError, ValueError: the array is not as described.
    """
    return [
        SampledToken(token_id, logprob, top_logprobs, _ERRORS.get(token_id))
        for token_id, logprob, top_logprobs in _native.sample(
            logits, tuple(row._native for row in rows), tuple(masks)
        )
    ]
