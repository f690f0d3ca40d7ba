"""A user's own functions on the logits, between the model and the sampler."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np

from quintet.backends.base import Float32Array
from quintet.engine.sequence import Sequence

logger = logging.getLogger(__name__)


def apply_logits_processors(
    sequences: Collection[Sequence], logits: Float32Array, vocab_size: int
) -> dict[Sequence, str]:
    """
    Put each sequence's logits through its `SamplingParams.logits_processors`, in place.

    Args:
        sequences: one per row.
        logits: [len(sequences), >= vocab_size] float32; further columns are not shown to anybody.

    Returns:
        The sequences with a processor that raised or returned no row of logits, and what to
        tell the client.  Their rows are NaN.
    """
    failed: dict[Sequence, str] = {}
    for sequence, row in zip(sequences, logits, strict=True):
        processors = sequence.request.params.logits_processors
        if not processors:
            continue
        try:
            prompt_ids = list(sequence.request.prompt_token_ids)
            output_ids = sequence.token_ids[len(prompt_ids) :]
            processed = row[:vocab_size].copy()
            for processor in processors:
                processed = _checked(processor(prompt_ids, output_ids, processed), vocab_size)
        except Exception as error:
            logger.error("a logits processor failed", exc_info=error)
            failed[sequence] = f"a logits processor failed: {type(error).__name__}: {error}"
            row[:] = np.nan
        else:
            row[:vocab_size] = processed
    return failed


def _checked(result: object, vocab_size: int) -> Float32Array:
    logits = np.asarray(result, np.float32)
    if logits.shape != (vocab_size,):
        raise ValueError(f"expected logits of shape ({vocab_size},), found {logits.shape}")
    return logits
