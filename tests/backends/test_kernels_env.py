"""QUINTET_KERNELS forces a kernel table by name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from quintet._native import kernels_info

PRINT = "from quintet._native import kernels_info; print(kernels_info()['active'])"


def active(name: str) -> str:
    environment = {**os.environ, "QUINTET_KERNELS": name}
    command = [sys.executable, "-c", PRINT]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("name", kernels_info()["available"])
def test_a_named_table_is_the_active_one(name):
    """Python can ask which kernels run, and forcing one is visible there."""
    assert active(name) == name


def test_an_unknown_table_is_no_silent_default():
    """A name that cannot run leaves nothing active."""
    assert active("sse9") == "None"
