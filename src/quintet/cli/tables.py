"""Tables in the terminal, and numbers in words."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns under their names; nothing is cut, so that the output can be piped."""
    cells = [tuple(name.upper() for name in names), *(tuple(map(_plain, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def size(num_bytes: int) -> str:
    """E.g. `4.8 MB`."""
    value, unit = float(num_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def age(then_s: float) -> str:
    """E.g. `3 days ago`."""
    return f"{duration(time.time() - then_s)} ago"


def duration(seconds: float) -> str:
    """E.g. `3 days`, in the largest unit that fits."""
    for name, length in _UNITS:
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "less than a second"


def _plain(text: str) -> str:
    """Text from elsewhere must not steer the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
