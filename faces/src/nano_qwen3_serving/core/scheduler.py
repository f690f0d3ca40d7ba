"""Who goes first."""

from __future__ import annotations

from enum import Enum


class RequestPriority(Enum):
    """Of a request, against the others of its model; waiting makes up for a lower one."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
