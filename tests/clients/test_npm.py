"""The npm packages openai and ollama under Node."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["openai", "ollama"])
def test_the_package_works(package: str, folder: Path, url: str):
    """Each script checks what it is told."""
    done = subprocess.run(
        ["node", f"{package}.mjs", url],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr
