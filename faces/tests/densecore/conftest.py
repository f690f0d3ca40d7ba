"""Fixtures: a model, and no store of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from densecore import DenseCore


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of models that tests, and the processes they start, see instead of the user's."""
    root = tmp_path_factory.mktemp("quintet-home")
    os.environ["QUINTET_HOME"] = str(root)
    return root


@pytest.fixture(scope="module")
def model(own_store: Path) -> Iterator[DenseCore]:
    """The demo model."""
    with DenseCore("demo") as loaded:
        yield loaded
