"""What the user says, and how it is to be answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oprel.core.exceptions import ValidationError


@dataclass(frozen=True)
class Turn:
    """
    A prompt on its way to a model.

    Args:
        prompt: what the user says.
        sampling: parameters by Quintet's names.
        conversation_id: of the conversation it belongs to; None: of none.
        system_prompt: instructions; None: those of the conversation, or of the model.
        reset: forget what was said before.
    """

    prompt: str
    sampling: dict[str, Any]
    conversation_id: str | None
    system_prompt: str | None
    reset: bool


def checked_sampling(
    max_tokens: int, temperature: float, top_p: float, top_k: int
) -> dict[str, Any]:
    """
    The parameters by Quintet's names.

    Raises:
        ValidationError: one is out of range.
    """
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValidationError(f"max_tokens: expected at least 1, found {max_tokens!r:.40}")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 0:
        raise ValidationError(f"top_k: expected at least 0, found {top_k!r:.40}")
    for name, value, highest in (("temperature", temperature, 2.0), ("top_p", top_p, 1.0)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0.0 <= value <= highest:
            raise ValidationError(f"{name}: expected 0 to {highest:g}, found {value!r:.40}")
    if temperature == 0:
        return {"max_tokens": max_tokens, "temperature": 0.0}
    return {
        "max_tokens": max_tokens,
        "temperature": float(temperature),
        "top_p": float(top_p),
        "top_k": top_k,
    }
