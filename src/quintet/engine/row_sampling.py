"""A token for each sequence of a step, where one that cannot be sampled costs only itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Collection

from quintet.backends.base import Float32Array, Threads
from quintet.engine.logits_processors import apply_logits_processors
from quintet.engine.sequence import Sequence
from quintet.sampling.sampler import Mask, SampledToken, sample

logger = logging.getLogger(__name__)


def sample_sequences(
    sequences: Collection[Sequence],
    logits: Float32Array,
    vocab_size: int,
    threads: Threads | None,
) -> tuple[list[SampledToken], dict[Sequence, str]]:
    """
    Sample the next token of each sequence.

    Args:
        sequences: one per row.
        logits: [len(sequences), >= vocab_size] float32, the caller's to change.
        threads: see `quintet.sampling.sample`.

    Returns:
        A token per sequence, of no meaning for those that failed; and these, with what to tell
        the client.
    """
    failed = apply_logits_processors(sequences, logits, vocab_size)
    masks = _masks(sequences, failed)
    samplers = [sequence.sampler for sequence in sequences]
    try:
        return sample(logits, samplers, masks, threads), failed
    except Exception as error:
        logger.error("a step could not be sampled; its rows are sampled apart", exc_info=error)
    tokens = []
    for row, sequence in enumerate(sequences):
        token = _sample_alone(sequence, logits[row : row + 1], masks[row : row + 1], failed)
        tokens.append(token)
    return tokens, failed


def _sample_alone(
    sequence: Sequence, logits: Float32Array, masks: list[Mask | None], failed: dict[Sequence, str]
) -> SampledToken:
    try:
        if sequence.sampler.num_accepted != sequence.num_generated_tokens:
            raise RuntimeError("its token is lost")  # and its random stream has moved on
        return sample(logits, [sequence.sampler], masks)[0]
    except Exception as error:  # noqa: BLE001 - logged below
        _fail(failed, sequence, "sampling", error)
        return SampledToken(-1)


def _masks(sequences: Collection[Sequence], failed: dict[Sequence, str]) -> list[Mask | None]:
    """What their constraints allow: a mask per sequence, or none where nobody has one."""
    if all(sequence.matcher is None for sequence in sequences):
        return []
    return [_mask(sequence, failed) for sequence in sequences]


def _mask(sequence: Sequence, failed: dict[Sequence, str]) -> Mask | None:
    try:
        return sequence.mask()
    except Exception as error:  # noqa: BLE001 - logged below
        _fail(failed, sequence, "its constraint", error)
        return None


def _fail(failed: dict[Sequence, str], sequence: Sequence, what: str, error: Exception) -> None:
    logger.error("%s of a sequence failed", what, exc_info=error)
    failed[sequence] = f"{what} failed ({type(error).__name__}); see the log"
