"""How an answer is drawn, in this interface's words."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nano_qwen3_serving.exceptions import InvalidParametersError
from quintet.errors import RequestError

if TYPE_CHECKING:
    from quintet import BeamSearchParams
    from quintet import SamplingParams as QuintetParams

CACHE_PRECISIONS = {
    "float16": "bfloat16",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "int8": "int8",
}
"""Precisions of the KV cache, to Quintet's."""

_NAMES = {"stop": "stop_sequences", "beam_width": "num_beams"}


@dataclass
class SamplingParams:
    """
    Args:
        temperature: 0 takes the most probable token.
        top_p: probability of the tokens drawn from, the most probable ones.
        top_k: number of tokens drawn from; -1 for all.
        max_tokens, min_tokens: of the answer.
        stop_sequences: texts that end the answer, which is without them.
        stop_token_ids: tokens that end it.
        repetition_penalty: above 1 makes tokens that have been less likely.
        length_penalty: of beam search: above 0 favours long answers, below 0 short ones.
        do_sample: False takes the most probable token each time.
        use_beam_search: search for the most probable answer, `num_beams` at a time.  It draws
            nothing, so that temperature, top_p and top_k have no say in it.
        use_cache: False computes the prompt anew even where the prefix cache has its beginning,
            and leaves nothing there that other requests find.
        cache_precision: of keys and values: "float16" and "bfloat16" (16 bits), "float32" or
            "int8".  The model is loaded again for one that it is not loaded with yet.

    Raises:
        InvalidParametersError: a value out of range, or two that exclude each other.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 100
    min_tokens: int = 0
    stop_sequences: list[str] | None = None
    stop_token_ids: list[int] | None = None
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    do_sample: bool = True
    use_beam_search: bool = False
    num_beams: int = 1
    use_cache: bool = True
    cache_precision: str = "float16"

    def __post_init__(self) -> None:
        if self.top_k == 0:
            raise InvalidParametersError("top_k: expected -1 for all tokens or at least 1, found 0")
        if self.cache_precision not in CACHE_PRECISIONS:
            raise InvalidParametersError(
                f"cache_precision: expected one of {', '.join(CACHE_PRECISIONS)}, "
                f"found {self.cache_precision!r}"
            )
        self.sampling(self.max_tokens)
        self.beam_search(self.max_tokens)  # for the ranges of its parameters
        if self.use_beam_search:
            self._check_beam_search()

    def _check_beam_search(self) -> None:
        for name, neutral in (("min_tokens", 0), ("repetition_penalty", 1.0), ("use_cache", True)):
            if getattr(self, name) != neutral:
                raise InvalidParametersError(
                    f"{name}: expected {neutral} with beam search, found {getattr(self, name)}"
                )

    @classmethod
    def greedy(cls, max_tokens: int = 100) -> SamplingParams:
        """The most probable token each time."""
        return cls(temperature=0.0, do_sample=False, max_tokens=max_tokens)

    @classmethod
    def creative(cls, max_tokens: int = 100) -> SamplingParams:
        """For stories."""
        return cls(temperature=0.8, top_p=0.9, top_k=50, max_tokens=max_tokens)

    @classmethod
    def balanced(cls, max_tokens: int = 100) -> SamplingParams:
        """For answers."""
        return cls(temperature=0.7, top_p=0.9, top_k=40, max_tokens=max_tokens)

    def to_dict(self) -> dict[str, Any]:
        """All parameters by name."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """What differs from the defaults."""
        changed = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"SamplingParams({', '.join(changed)})"

    def sampling(self, max_tokens: int) -> QuintetParams:
        """These for an answer of at most so many tokens."""
        from quintet import SamplingParams as QuintetParams

        try:
            return QuintetParams(
                max_tokens=max_tokens,
                min_tokens=min(self.min_tokens, max_tokens)
                if max_tokens < self.max_tokens
                else self.min_tokens,
                temperature=self.temperature if self.do_sample else 0.0,
                top_p=self.top_p,
                top_k=0 if self.top_k == -1 else self.top_k,
                stop=self.stop_sequences or (),
                stop_token_ids=self.stop_token_ids or (),
                repetition_penalty=self.repetition_penalty,
            )
        except RequestError as error:
            raise _renamed(error) from error

    def beam_search(self, max_tokens: int) -> BeamSearchParams:
        """These for a beam search."""
        from quintet import BeamSearchParams

        try:
            return BeamSearchParams(
                beam_width=self.num_beams,
                max_tokens=max_tokens,
                length_penalty=self.length_penalty,
            )
        except RequestError as error:
            raise _renamed(error) from error

    @property
    def cache_salt(self) -> str:
        """What keeps requests that are not to use the prefix cache apart from all others."""
        return "" if self.use_cache else secrets.token_hex(16)


def _renamed(error: RequestError) -> InvalidParametersError:
    parameter = error.parameter or ""
    text = str(error).removeprefix(f"{parameter}: ")
    return InvalidParametersError(f"{_NAMES.get(parameter, parameter)}: {text}")
