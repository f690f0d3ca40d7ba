"""What a sliding context drops when it is full.

Whole blocks go, so that those kept at the start are found again in the prefix cache.
About half of what may go does at once: everything behind it has new positions and is
computed anew, which should happen seldom.
"""

from __future__ import annotations

from quintet.backends.base import BLOCK_SIZE

MIN_SLIDING_LEN = 4 * BLOCK_SIZE  # so that there is a block to drop whatever is kept


def num_dropped(num_tokens: int, *, max_model_len: int, num_keep_tokens: int) -> int:
    """
    Tokens to drop behind the first `num_keep_tokens`: a multiple of BLOCK_SIZE.

    0 while there is room for one more.  Otherwise at least half of the context behind what is
    kept becomes free, less than a block more than that.
    """
    if num_tokens < max_model_len:
        return 0
    num_remaining = num_keep_tokens + (max_model_len - num_keep_tokens) // 2
    return -(-(num_tokens - num_remaining) // BLOCK_SIZE) * BLOCK_SIZE
