"""How an answer is generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from densecore.exceptions import InvalidConfigError

if TYPE_CHECKING:
    from quintet import SamplingParams


@dataclass
class GenerationConfig:
    """
    How an answer is generated.

    Args:
        max_tokens: of the answer, from 1; the context may end it before.
        temperature: 0 takes the most probable token.
        top_p: draw from the fewest tokens that together have this probability.
        top_k: draw from this many of the most probable tokens; 0 from all.
        repetition_penalty: above 1 makes tokens of the prompt and the answer less likely.
        stop_sequences: texts that end the answer, which does not contain them.
        json_mode: the answer is a JSON object.

    Raises:
        InvalidConfigError: a value out of range.
    """

    max_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    repetition_penalty: float = 1.1
    stop_sequences: list[str] | None = None
    json_mode: bool = False

    def __post_init__(self) -> None:
        self.sampling()

    def sampling(self) -> SamplingParams:
        """The same for Quintet.

        Raises:
            InvalidConfigError: a value was set out of range.
        """
        from quintet import Constraint, RequestError, SamplingParams

        try:
            return SamplingParams(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                repetition_penalty=self.repetition_penalty,
                stop=self.stop_sequences or (),
                constraint=Constraint.json_object() if self.json_mode else None,
            )
        except RequestError as error:
            text = str(error)
            if error.parameter == "stop":
                text = f"stop_sequences: {text.removeprefix('stop: ')}"
            raise InvalidConfigError(text) from error
