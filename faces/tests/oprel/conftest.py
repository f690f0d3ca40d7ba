"""A daemon of the tests' own: its folders, its port, ended with them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oprel import daemon

sys.path.append(str(Path(__file__).parents[3] / "tests"))  # for its hub that runs on this machine


@pytest.fixture(scope="module", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models, state and port that no program of the user's has; what runs at the end is ended."""
    root = tmp_path_factory.mktemp("oprel")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv("QUINTET_HOME", str(root / "models"))
    patch.setenv("XDG_STATE_HOME", str(root / "state"))
    patch.setenv("OPREL_SERVER_PORT", str(port))
    for name in ("OPREL_CACHE_DIR", "OPREL_BINARY_DIR", "OPREL_SERVER_HOST", "OPREL_LOG_LEVEL"):
        patch.delenv(name, raising=False)
    yield root
    daemon.stop(port)
    patch.undo()


@pytest.fixture
def port() -> int:
    """Where this user's daemon is, or would be."""
    return int(os.environ["OPREL_SERVER_PORT"])
