"""Quintet's native core."""

from collections.abc import Sequence

import numpy
import numpy.typing

class RowSampler:
    """One sequence's sampler; quintet.sampling.RowSampler is its public form."""

    def __init__(
        self,
        *,
        vocab_size: int,
        seed: int,
        prompt_ids: Sequence[int],
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        presence_penalty: float,
        frequency_penalty: float,
        logit_bias: Sequence[tuple[int, float]],
        min_tokens: int,
        ending_ids: Sequence[int],
        num_logprobs: int,
    ) -> None: ...
    def accept(self, token_id: int) -> None: ...
    def distribution(
        self, logits: numpy.typing.NDArray[numpy.float32]
    ) -> list[tuple[int, float]]: ...
    @property
    def num_accepted(self) -> int: ...

def sample(
    logits: numpy.typing.NDArray[numpy.float32], samplers: tuple[RowSampler, ...]
) -> list[tuple[int, float | None, tuple[tuple[int, float], ...] | None]]: ...
