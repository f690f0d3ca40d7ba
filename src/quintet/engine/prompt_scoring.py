"""Log probabilities of a prompt's tokens, taken from the logits of its prefill."""

from __future__ import annotations

from collections.abc import Collection

from quintet.backends.base import Float32Array, Threads
from quintet.engine.output import TokenLogprob
from quintet.engine.scheduler import Scheduled
from quintet.engine.sequence import Sequence
from quintet.sampling.sampler import score


def score_prompts(
    batch: Collection[Scheduled],
    logits: Float32Array,
    vocab_size: int,
    threads: Threads | None,
) -> tuple[Float32Array, list[Sequence]]:
    """
    Score what the step's logits say of the prompts, and set those rows aside.

    Args:
        batch: the step.
        logits: [rows, >= vocab_size] float32, as `build_step` asked for them.
        threads: see `quintet.sampling.score`.

    Returns:
        The rows to sample from, 1 and one per guess for each sequence that samples; and the
        sequences with a row that holds no numbers.
    """
    if not any(scheduled.scored for scheduled in batch):
        return logits, []
    bad: list[Sequence] = []
    sampled_rows: list[int] = []
    row = 0
    for scheduled in batch:
        sequence, scored = scheduled.sequence, scheduled.scored
        following = sequence.token_ids[scored.start + 1 : scored.stop + 1] if scored else []
        scores = score(
            logits[row : row + len(scored)],
            following,
            vocab_size=vocab_size,
            num_top=sequence.request.params.prompt_logprobs or 0,
            threads=threads,
        )
        for token_id, found in zip(following, scores, strict=True):
            if found is None:
                bad.append(sequence)
                break
            sequence.prompt_logprobs.append(TokenLogprob(token_id, found.logprob, found.top))
        row += len(scored)
        if scheduled.samples:
            num_rows = 1 + len(scheduled.draft_ids)
            sampled_rows += range(row, row + num_rows)
            row += num_rows
    return logits[sampled_rows], bad
