"""What the engine takes: checked at the door, before anything is queued."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    vocab_size: int
    max_model_len: int
    max_num_requests: int
    eos_ids: frozenset[int] = frozenset()

    def check(self, request: Request) -> None:
        """Refuse a request that could never be served.

        Raises:
            ContextLengthError: the prompt leaves no room for one token; nothing is cut.
            RequestError: an empty prompt, or an id, bias or stop token outside the vocabulary.
        """
        token_ids = request.prompt_token_ids
        if not token_ids:
            raise RequestError("expected at least one token, found none", parameter="prompt")
        if len(token_ids) + 1 > self.max_model_len:
            raise ContextLengthError(len(token_ids) + 1, self.max_model_len)
        for token_id in token_ids:
            if not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
                raise RequestError(
                    f"expected token ids from 0 to {self.vocab_size - 1}, found {token_id!r}",
                    parameter="prompt",
                )
        request.params.check_vocab(self.vocab_size)
