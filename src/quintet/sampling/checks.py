"""Checks of single parameter values: type, finiteness, range.

Each takes what a client may have sent, returns the plain Python value or raises a `RequestError`
that names the parameter.  A bool is not a number here, though Python counts it as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from quintet.errors import RequestError

MAX_STRINGS = 16
MAX_STOP_BYTES = 256
MAX_BREAKER_BYTES = 40
MAX_TOKEN_IDS = 1024
MAX_PROCESSORS = 16
MAX_LOGIT_BIAS = 100.0


def checked_int(name: str, value: object, low: int, high: int) -> int:
    """An integer in [low, high]; NumPy integers count."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _wrong_type(name, "an integer", value)
    number = int(value)
    if not low <= number <= high:
        raise RequestError(
            f"expected an integer from {low} to {high}, found {_shown(number)}", parameter=name
        )
    return number


def checked_float(name: str, value: object, low: float, high: float) -> float:
    """A finite number in [low, high]; integers and NumPy numbers count."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _wrong_type(name, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        raise RequestError(
            f"expected a number from {low:g} to {high:g}, found {number}", parameter=name
        )
    return number


def checked_bool(name: str, value: object) -> bool:
    """True or False, nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise _wrong_type(name, "true or false", value)
    return value


def checked_token_ids(name: str, value: object) -> tuple[int, ...]:
    """Token ids, 0 or more, as a tuple; the vocabulary's end is checked when the model is known."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _wrong_type(name, "a list of token ids", value)
    if len(value) > MAX_TOKEN_IDS:
        raise RequestError(
            f"expected at most {MAX_TOKEN_IDS} token ids, found {len(value)}", parameter=name
        )
    return tuple(_checked_token_id(name, token_id) for token_id in value)


def checked_logit_bias(value: object) -> dict[int, float]:
    """Token id to bias, copied."""
    name = "logit_bias"
    if not isinstance(value, Mapping):
        raise _wrong_type(name, "a map from token id to number", value)
    if len(value) > MAX_TOKEN_IDS:
        raise RequestError(
            f"expected at most {MAX_TOKEN_IDS} entries, found {len(value)}", parameter=name
        )
    return {
        _checked_token_id(name, token_id): checked_float(
            name, bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS
        )
        for token_id, bias in value.items()
    }


def checked_strings(
    name: str, value: object, *, max_bytes: int = MAX_STOP_BYTES
) -> tuple[str, ...]:
    """Strings as a tuple; one string stands for itself."""
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise _wrong_type(name, "a string or a list of strings", value)
    if len(value) > MAX_STRINGS:
        raise RequestError(
            f"expected at most {MAX_STRINGS} strings, found {len(value)}", parameter=name
        )
    return tuple(_checked_string(name, string, max_bytes) for string in value)


def checked_processors(value: object) -> tuple[Callable[..., Any], ...]:
    """Functions as a tuple."""
    name = "logits_processors"
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _wrong_type(name, "a list of functions", value)
    if len(value) > MAX_PROCESSORS:
        raise RequestError(
            f"expected at most {MAX_PROCESSORS} functions, found {len(value)}", parameter=name
        )
    for processor in value:
        if not callable(processor):
            raise _wrong_type(name, "functions", processor)
    return tuple(value)


def _checked_string(name: str, string: object, max_bytes: int) -> str:
    if not isinstance(string, str):
        raise _wrong_type(name, "strings", string)
    try:
        size_bytes = len(string.encode())
    except UnicodeEncodeError:
        raise RequestError(
            "expected text, found half of a surrogate pair", parameter=name
        ) from None
    if not 1 <= size_bytes <= max_bytes:
        raise RequestError(
            f"expected strings of 1 to {max_bytes} bytes, found one of {size_bytes}",
            parameter=name,
        )
    return string


def _checked_token_id(name: str, value: object) -> int:
    return checked_int(name, value, 0, 2**31 - 1)


def _wrong_type(name: str, expected: str, found: object) -> RequestError:
    return RequestError(f"expected {expected}, found {type(found).__name__}", parameter=name)


def _shown(number: int) -> str:
    """The number, unless its digits would fill the message."""
    return str(number) if number.bit_length() <= 128 else f"one of {number.bit_length()} bits"
