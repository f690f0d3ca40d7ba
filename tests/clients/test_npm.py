"""The npm packages openai and ollama under Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "npm"
_INSTALL = [
    "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
    "--fetch-retries=0", "--fetch-timeout=20000",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and the packages, of the versions package.json names."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    path = tmp_path_factory.mktemp("npm")
    shutil.copytree(SCRIPTS, path, dirs_exist_ok=True)
    try:
        done = subprocess.run(
            _INSTALL, cwd=path, capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer")
    if done.returncode != 0 and any(
        code in done.stderr for code in ("ENOTFOUND", "ECONN", "EAI_AGAIN", "ETIMEDOUT", "E403")
    ):
        pytest.skip("the npm registry cannot be reached")
    assert done.returncode == 0, done.stderr
    return path


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
