"""Fixtures of all faces."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of models that tests, and the processes they start, see instead of the user's.

    Names that programs use for models stand for the packaged one there.
    """
    root = tmp_path_factory.mktemp("quintet-home")
    names = ["Qwen/Qwen3-0.6B"]
    (root / "aliases.json").write_text(json.dumps(dict.fromkeys(names, "demo")))
    os.environ["QUINTET_HOME"] = str(root)
    return root
