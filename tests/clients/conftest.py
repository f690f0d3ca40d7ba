"""A server with the packaged model, for clients that run outside its event loop; npm packages."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quintet import AsyncLLM
from quintet.hub.manifest import Manifest
from quintet.hub.store import Store
from quintet.server.models import LoadPolicy, Models
from server.harness import serving_in_thread

SCRIPTS = Path(__file__).parent / "npm"
_INSTALL = [
    "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
    "--fetch-retries=0", "--fetch-timeout=20000",
]  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that loads the demo model when asked for."""

    async def load(manifest: Manifest) -> AsyncLLM:
        return await AsyncLLM(manifest.name, num_threads=1).__aenter__()

    store = Store(tmp_path_factory.mktemp("store"))
    with serving_in_thread(Models(store, load, LoadPolicy())) as address:
        yield address


@pytest.fixture(scope="session")
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
