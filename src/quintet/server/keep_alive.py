"""How long a client wants a model to stay in memory.

Sources: Ollama, docs/api.md (`keep_alive`: seconds as a number, or a duration; negative means for
ever); Go, package time, `ParseDuration` (the durations).
"""

from __future__ import annotations

import math
import re
from typing import Final

from quintet.errors import RequestError

_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(ns|us|µs|ms|s|m|h)")
_MAX_CHARS: Final = 64


def keep_alive_s(value: float | str | None) -> float | None:
    """Seconds that a model stays after its last request; infinity for ever, None as it is set.

    Args:
        value: seconds, or text: a Go duration such as "5m" or "1h30m", or a number of seconds.

    Raises:
        RequestError: neither.
    """
    if value is None:
        return None
    seconds = _parsed(value) if isinstance(value, str) else float(value)
    if math.isnan(seconds):
        raise RequestError(
            'expected seconds or a duration such as "5m" or "1h30m"', parameter="keep_alive"
        )
    return math.inf if seconds < 0 else seconds


def _parsed(text: str) -> float:
    """NaN for what is no duration."""
    if len(text) > _MAX_CHARS:
        return math.nan
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", digits):
        return sign * float(digits)
    parts = list(_PART.finditer(digits))
    if not parts or sum(len(part[0]) for part in parts) < len(digits):
        return math.nan
    return sign * sum(float(part[1]) * _UNITS_S[part[2]] for part in parts)
