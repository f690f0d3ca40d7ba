"""A loaded engine for tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from woolly import Engine, EngineConfig


@pytest.fixture(scope="module", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models that no program of the user's has."""
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("woolly")
    patch.setenv("QUINTET_HOME", str(root))
    yield root
    patch.undo()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """With the demo model."""
    with Engine(EngineConfig.builder().max_sequence_length(1024).build()) as engine:
        engine.load_model("demo")
        yield engine
