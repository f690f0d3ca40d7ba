"""The command in a process of its own, as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

COMMAND = [sys.executable, "-m", "quintet"]

Quintet = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def quintet() -> Quintet:
    """Run `quintet ARGUMENTS` with this text on stdin; None is an empty stdin."""

    def call(
        *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **(env or {})},
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def demo() -> str:
    """The packaged model's name."""
    return "demo"
