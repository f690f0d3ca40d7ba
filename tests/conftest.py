"""Fixtures for every room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported: oracles are tiny, and their thread pools would fight ours for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are shared: an example that takes long has not failed.
settings.register_profile("quintet", deadline=None)
settings.load_profile("quintet")


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of models that tests, and the processes they start, see instead of the user's."""
    root = tmp_path_factory.mktemp("quintet-home")
    os.environ["QUINTET_HOME"] = str(root)
    return root


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public test data: vocab/*.gguf and templates/*.jinja.

    $QUINTET_TEST_DATA if set, else ../shared/data beside the repository; tests that ask for it
    are skipped where there is neither.
    """
    named = os.environ.get("QUINTET_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set QUINTET_TEST_DATA")
    return folder
