"""Devices programs ask for, and what there is."""

from __future__ import annotations

import logging
import re

from nano_qwen3_serving.exceptions import InvalidParametersError

_log = logging.getLogger("nano_qwen3_serving")
_DEVICE = re.compile(r"(auto|cpu|mps|cuda)(:\d+)?")
_warned: set[str] = set()


def usable_device(device: str) -> str:
    """
    The device a model runs on when a program asks for this one.

    Says once for each that is not there, in the log, which shows on stderr by default: a program
    that runs elsewhere unchanged is not to fail for it.

    Raises:
        InvalidParametersError: no device's name.
    """
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise InvalidParametersError(
            f"device: expected auto, cpu, mps, cuda or cuda:N, found {device!r}"
        )
    if device not in ("auto", "cpu") and device not in _warned:
        _warned.add(device)
        _log.warning("device %r is not available, the model runs on 'cpu'", device)
    return "cpu"
