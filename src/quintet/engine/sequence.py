"""Tokens being grown, and what has been computed of them."""

from __future__ import annotations

import enum
import time
from array import array
from typing import NamedTuple

from quintet.backends.base import BLOCK_SIZE
from quintet.engine.block_pool import BlockHash
from quintet.engine.output import FinishReason, Timings, TokenLogprob, Usage
from quintet.engine.overflow import num_dropped
from quintet.engine.request import Request
from quintet.engine.text import TextStream
from quintet.sampling.matcher import ConstraintMatcher
from quintet.sampling.sampler import Mask, RowSampler


class Status(enum.Enum):
    """Where a sequence is; it may go back from RUNNING to WAITING, never from FINISHED."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


class End(NamedTuple):
    """
    How an answer ended.

    Args:
        finish_reason, stop_reason: see OutputChunk.
        hides_last_token: its last token is no part of its text.
    """

    finish_reason: FinishReason
    stop_reason: str | int | None = None
    hides_last_token: bool = False


class Sequence:
    """
    A request in work, or one of its answers where it asks for several.

    There is no prefill phase and no decode phase: there are tokens, and
    `num_computed_tokens` of them have their keys and values in the cache.  A step
    computes some of the rest, and when none is left the last one's logits give the
    next token.  A preempted sequence keeps its tokens and its sampler and merely
    computes again.

    Args:
        request: what was asked.
        rank: place in the order of service, smaller first; never changes, never equal.
        sampler: of this sequence's rows.
        text: its text so far.
        eos_ids: tokens that end it, besides `SamplingParams.stop_token_ids`.
        max_total_tokens: tokens of prompt and answer, dropped ones included, at which it ends.
        max_model_len: tokens that it can have at a time.
        index: of the answer.
        matcher: of its constraint, if it has one.
    """

    def __init__(
        self,
        request: Request,
        *,
        rank: tuple[int, int],
        sampler: RowSampler,
        text: TextStream,
        eos_ids: frozenset[int],
        max_total_tokens: int,
        max_model_len: int,
        index: int = 0,
        matcher: ConstraintMatcher | None = None,
    ) -> None:
        self.request = request
        self.rank = rank
        self.sampler = sampler
        self.text = text
        self.eos_ids = eos_ids
        self.max_total_tokens = max_total_tokens
        self.max_model_len = max_model_len
        self.index = index
        self.matcher = matcher

        self.status = Status.WAITING
        self.token_ids = list(request.prompt_token_ids)
        self.num_dropped_tokens = 0  # from token_ids, by a sliding context
        self.num_computed_tokens = 0
        self.num_preemptions = 0
        self.block_table = array("i")  # not a list: copied into every step, and fast that way
        self.block_names: list[BlockHash] = []  # of the full blocks; outlives preemption

        self.wants_scores = request.params.prompt_logprobs is not None and index == 0
        self.prompt_logprobs: list[TokenLogprob] = []  # of its second token, its third...
        self.num_cached_tokens = 0  # of the prompt, when it first ran
        self.first_run_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s = 0.0
        self.slide()

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self.request.request_id

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt_token_ids)

    @property
    def num_generated_tokens(self) -> int:
        """Tokens sampled so far."""
        return self.num_total_tokens - self.num_prompt_tokens

    @property
    def num_total_tokens(self) -> int:
        """Tokens of prompt and answer, dropped ones included."""
        return len(self.token_ids) + self.num_dropped_tokens

    @property
    def num_tokens_left(self) -> int:
        """Tokens it may get before it ends for their number, or its context is full."""
        return min(
            self.max_total_tokens - self.num_total_tokens,
            self.max_model_len - len(self.token_ids),
        )

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens still to compute before the next one can be sampled; at least 1."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def num_unscored_tokens(self) -> int:
        """Tokens of the prompt whose log probabilities are wanted and not known yet."""
        if not self.wants_scores:
            return 0
        return self.num_prompt_tokens - 1 - len(self.prompt_logprobs)

    @property
    def num_missing_blocks(self) -> int:
        """Blocks to add for all its tokens to fit."""
        return -(-len(self.token_ids) // BLOCK_SIZE) - len(self.block_table)

    def full_block(self, index: int) -> list[int]:
        """The tokens of full block `index`: BLOCK_SIZE ids."""
        return self.token_ids[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]

    def mask(self) -> Mask | None:
        """The tokens its constraint allows next; None where all are."""
        return None if self.matcher is None else self.matcher.mask()

    def append(self, token_id: int) -> tuple[str, End | None]:
        """Take in a sampled token; the one place that knows when an answer is complete.

        Returns:
            New text, and the end if this is it.

        Raises:
            ValueError: its constraint does not allow the token.
        """
        if self.matcher is not None:
            self.matcher.accept(token_id)
        self.token_ids.append(token_id)
        params = self.request.params
        if token_id in params.stop_token_ids:
            is_shown = params.include_stop_str_in_output
            text = self.text.push(token_id)[0] if is_shown else ""
            end = End("stop", token_id, hides_last_token=not is_shown)
            return text + self.text.finish(), end
        if token_id in self.eos_ids:
            return self.text.finish(), End("stop", hides_last_token=True)
        text, matched = self.text.push(token_id)
        if matched is not None:
            return text, End("stop", matched)
        if self.matcher is not None and self.matcher.must_end and not self.eos_ids:
            return text + self.text.finish(), End("stop")
        if len(self.token_ids) + self.num_dropped_tokens >= self.max_total_tokens:
            return text + self.text.finish(), End("length")
        return text, None

    def slide(self) -> bool:
        """Drop old tokens if the context is full and may slide.

        Returns:
            Whether it did: what has been computed is void then, up to the kept tokens' blocks.
        """
        if self.request.overflow != "slide":
            return False
        start = self.request.num_keep_tokens
        count = num_dropped(
            len(self.token_ids), max_model_len=self.max_model_len, num_keep_tokens=start
        )
        if count == 0:
            return False
        del self.token_ids[start : start + count]
        del self.block_names[start // BLOCK_SIZE :]
        self.num_dropped_tokens += count
        return True

    def usage(self) -> Usage:
        """Tokens taken so far."""
        return Usage(
            self.num_prompt_tokens,
            self.num_cached_tokens,
            self.num_generated_tokens,
            num_dropped_tokens=self.num_dropped_tokens,
            block_ids=tuple(self.block_table),
        )

    def timings(self) -> Timings:
        """Where its time went, if it ends now."""
        now = time.monotonic()
        started = now if self.first_run_s is None else self.first_run_s
        answered = now if self.first_token_s is None else self.first_token_s
        return Timings(
            queue_s=started - self.request.arrival_s,
            prefill_s=answered - started,
            decode_s=now - answered,
        )


def num_blocks(num_tokens: int) -> int:
    """Blocks that hold this many tokens."""
    return -(-num_tokens // BLOCK_SIZE)
