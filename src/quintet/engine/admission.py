"""What the engine takes: checked at the door, before anything is queued."""

from __future__ import annotations

from dataclasses import dataclass

from quintet.engine.overflow import MIN_SLIDING_LEN
from quintet.engine.request import Request
from quintet.errors import ContextLengthError, RequestError


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """
    The bounds of an engine; fixed while it lives.

    Args:
        vocab_size: token ids are 0 .. vocab_size - 1.
        max_model_len: tokens of prompt and answer together.
        max_num_requests: unfinished requests, running and waiting.
        eos_ids: tokens that end an answer.
        max_num_seqs: sequences that may run in one step.
    """

    vocab_size: int
    max_model_len: int
    max_num_requests: int
    eos_ids: frozenset[int] = frozenset()
    max_num_seqs: int = 1

    def check(self, request: Request) -> None:
        """Refuse a request that could never be served.

        Raises:
            ContextLengthError: the prompt leaves no room for one token; nothing is cut.
            RequestError: an empty prompt; an id, bias or stop token outside the vocabulary; more
                tokens to keep than a sliding context can.
        """
        token_ids = request.prompt_token_ids
        if not token_ids:
            raise RequestError("expected at least one token, found none", parameter="prompt")
        if request.overflow == "slide":
            self._check_sliding(request)
        elif len(token_ids) + 1 > self.max_model_len:
            raise ContextLengthError(len(token_ids) + 1, self.max_model_len)
        for token_id in token_ids:
            if not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
                raise RequestError(
                    f"expected token ids from 0 to {self.vocab_size - 1}, found {token_id!r}",
                    parameter="prompt",
                )
        request.params.check_vocab(self.vocab_size)

    def _check_sliding(self, request: Request) -> None:
        if self.max_model_len < MIN_SLIDING_LEN:
            raise RequestError(
                f"expected a context of at least {MIN_SLIDING_LEN} tokens to slide, "
                f"found {self.max_model_len}",
                parameter="overflow",
            )
        if 2 * request.num_keep_tokens > self.max_model_len:
            raise RequestError(
                f"expected at most half of the context, {self.max_model_len // 2}, "
                f"found {request.num_keep_tokens}",
                parameter="num_keep_tokens",
            )
        if request.params.logits_processors:
            # They are shown all tokens of the answer, which would no longer be there.
            raise RequestError(
                'expected no logits_processors with "slide"', parameter="logits_processors"
            )
        is_too_long = len(request.prompt_token_ids) + 1 > self.max_model_len
        if is_too_long and request.params.prompt_logprobs is not None:
            raise RequestError(
                "expected a prompt that fits the context, or no prompt_logprobs with it",
                parameter="overflow",
            )
