"""What the engine takes: checked at the door, before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quintet.engine.embedding import EmbeddingRequest, EmbeddingSpec
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
        embedding: what it does with whole texts; None: nothing.
        can_generate: whether it continues prompts.
    """

    vocab_size: int
    max_model_len: int
    max_num_requests: int
    eos_ids: frozenset[int] = frozenset()
    max_num_seqs: int = 1
    embedding: EmbeddingSpec | None = None
    can_generate: bool = True

    def check(self, request: Request) -> None:
        """Refuse a request that could never be served.

        Raises:
            ContextLengthError: the prompt leaves no room for one token; nothing is cut.
            RequestError: an empty prompt; an id, bias or stop token outside the vocabulary; more
                tokens to keep than a sliding context can.
        """
        if not self.can_generate:
            raise RequestError("expected a model that generates text, found an encoder")
        token_ids = request.prompt_token_ids
        if not token_ids:
            raise RequestError("expected at least one token, found none", parameter="prompt")
        if request.overflow == "slide":
            self._check_sliding(request)
        elif len(token_ids) + 1 > self.max_model_len:
            raise ContextLengthError(len(token_ids) + 1, self.max_model_len)
        self._check_ids(token_ids, "prompt")
        request.params.check_vocab(self.vocab_size)

    def check_embedding(self, request: EmbeddingRequest) -> None:
        """Refuse an embedding request that could never be served.

        Raises:
            ContextLengthError: a text is longer than the context.
            RequestError: no text, an empty one, an id outside the vocabulary, or a pooling that
                this model does not have.
        """
        spec = self.embedding
        if spec is None:
            raise RequestError("expected a model that embeds texts, found one that does not")
        if request.pooling == "rank" and spec.ranks == "no":
            raise RequestError(
                'expected a model with a classifier for "rank", found none', parameter="pooling"
            )
        if not request.texts or not all(request.texts):
            raise RequestError("expected texts of at least one token each", parameter="input")
        for token_ids in request.texts:
            if len(token_ids) > self.max_model_len:
                raise ContextLengthError(len(token_ids), self.max_model_len, parameter="input")
            self._check_ids(token_ids, "input")

    def _check_ids(self, token_ids: Sequence[int], parameter: str) -> None:
        for token_id in token_ids:
            if not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
                raise RequestError(
                    f"expected token ids from 0 to {self.vocab_size - 1}, found {token_id!r}",
                    parameter=parameter,
                )

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
