"""One answer on its way through thought and constraint: which tokens may come next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from quintet.parsing.thinking import THINK_END, THINK_START, Thinking
from quintet.sampling.sampler import Mask
from quintet.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

_END_BYTES: Final = THINK_END.encode()


class MatcherVocabulary:
    """What matchers know of the model's tokens; shared by all of them.

    Args:
        tokenizer: of the model.
        eos_ids: tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.num_words = (tokenizer.vocab_size + 31) // 32
        self.think_start_id = tokenizer.token_to_id(THINK_START)
        self.think_end_id = tokenizer.token_to_id(THINK_END)
        self.think_end_ids = (
            tuple(tokenizer.encode(THINK_END, add_special=False))
            if self.think_end_id is None
            else (self.think_end_id,)
        )
        self.eos_ids = frozenset(i for i in eos_ids if i < tokenizer.vocab_size)
        self.all_but_eos = np.full(self.num_words, 0xFFFFFFFF, np.uint32)
        for token_id in self.eos_ids:
            self.all_but_eos[token_id // 32] &= ~np.uint32(1 << token_id % 32)


class ConstraintMatcher:
    """
    The state of one answer.  It survives a preemption: it follows the tokens, not the cache.

    Not for use by two threads at a time.

    Args:
        matcher: llguidance's, fresh; None where what follows the thought is free.
        vocabulary: of the model.
        thinking: while a model thinks, everything is allowed but to end a constrained answer.
        max_thinking_tokens: a thought of so many tokens is closed: nothing but its end mark may
            come then.  None: it may be as long as it likes.
    """

    def __init__(
        self,
        matcher: llguidance.LLMatcher | None,
        vocabulary: MatcherVocabulary,
        thinking: Thinking,
        max_thinking_tokens: int | None = None,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        if thinking is Thinking.POSSIBLE and vocabulary.think_start_id is None:
            thinking = Thinking.NONE
        self._thinking = thinking
        self._max_thinking_tokens = max_thinking_tokens
        self._num_thinking_tokens = 0
        self._tail = b""  # the end of the thought, in case its end mark spans tokens
        self._mask = np.zeros(vocabulary.num_words, np.uint32)

    @property
    def must_end(self) -> bool:
        """Whether the constraint allows no more text: only a token that ends the answer."""
        if self._matcher is None or self._thinking is Thinking.OPEN:
            return False
        return self._matcher.is_stopped()

    @property
    def error(self) -> str:
        """Why no token is allowed any more, where the matcher has failed; else empty."""
        if self._matcher is None:
            return ""
        return self._matcher.get_error().strip().partition("\n")[0]

    def copy(self) -> ConstraintMatcher:
        """Another one in the same state."""
        copy = ConstraintMatcher(
            None if self._matcher is None else self._matcher.deep_copy(),
            self._vocabulary,
            self._thinking,
            self._max_thinking_tokens,
        )
        copy._num_thinking_tokens, copy._tail = self._num_thinking_tokens, self._tail
        return copy

    def mask(self) -> Mask | None:
        """The tokens that may come next, None for all; valid until the next call.  Releases the
        GIL.

        No token at all may come where the matcher has failed; `error` says why.
        """
        if self._thinking is Thinking.OPEN and self._num_excess_tokens >= 0:
            end_id = self._vocabulary.think_end_ids[self._num_excess_tokens]
            self._mask.fill(0)
            self._mask[end_id // 32] = np.uint32(1 << end_id % 32)
            return self._mask
        if self._matcher is None:
            return None
        if self._thinking is Thinking.OPEN:
            return self._vocabulary.all_but_eos
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if self._matcher.is_error():
            self._mask.fill(0)
        elif self._thinking is Thinking.POSSIBLE:
            start_id = self._vocabulary.think_start_id
            if start_id is not None:
                self._mask[start_id // 32] |= np.uint32(1 << start_id % 32)
        return self._mask

    def accept(self, token_id: int) -> None:
        """Follow a token of the answer.

        Raises:
            ValueError: the constraint does not allow it.
        """
        if self._thinking is Thinking.OPEN:
            self._think(token_id)
        elif self._thinking is Thinking.POSSIBLE and token_id == self._vocabulary.think_start_id:
            self._thinking = Thinking.OPEN
        else:
            self._thinking = Thinking.NONE
            self._consume(token_id)

    @property
    def _num_excess_tokens(self) -> int:
        """Tokens of the thought beyond its budget; negative while it may go on."""
        most = self._max_thinking_tokens
        return -1 if most is None else self._num_thinking_tokens - most

    def _consume(self, token_id: int) -> None:
        if self._matcher is not None and not self._matcher.consume_token(token_id):
            raise ValueError(f"the constraint does not allow it: {self.error}")

    def _think(self, token_id: int) -> None:
        self._num_thinking_tokens += 1
        if token_id == self._vocabulary.think_end_id:
            self._thinking = Thinking.NONE
            return
        self._tail += self._vocabulary.tokenizer.token_bytes(token_id)
        _, mark, rest = self._tail.partition(_END_BYTES)
        if not mark:
            self._tail = self._tail[1 - len(_END_BYTES) :]
            return
        self._thinking = Thinking.NONE
        # Where the mark is spelled out, its last token may hold the answer's first characters.
        text = rest.decode(errors="replace").lstrip()
        for following in self._vocabulary.tokenizer.encode(text, add_special=False):
            self._consume(following)
