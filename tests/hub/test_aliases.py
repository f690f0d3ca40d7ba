"""Aliases: a program's names for models, mapped by the user and by nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quintet.errors import ModelFormatError, ModelNotFoundError
from quintet.hub.aliases import alias_of
from quintet.hub.packaged import packaged_models
from quintet.hub.resolve import find, resolve
from quintet.hub.store import Store


def write(root: Path, aliases: object) -> Store:
    root.mkdir(exist_ok=True)
    (root / "aliases.json").write_text(json.dumps(aliases))
    return Store(root)


def test_names_and_paths_stand_for_models(tmp_path: Path):
    """Whatever a program calls a model, a path included, may be another one's name or path."""
    demo = packaged_models()["demo"]
    store = write(
        tmp_path, {"Qwen/Qwen3-0.6B": "demo", "./models/x.gguf": "demo", "copy": str(demo)}
    )
    assert resolve("Qwen/Qwen3-0.6B", store) == demo
    assert resolve("./models/x.gguf", store) == demo
    assert resolve("copy", store) == demo
    assert find("Qwen/Qwen3-0.6B", store).name == "demo:latest"
    assert store.get("Qwen/Qwen3-0.6B").name == "demo:latest"
    assert store.find("other") is None
    with pytest.raises(ModelNotFoundError):
        resolve("other", store)


def test_changes_are_seen(tmp_path: Path):
    """The file is read anew when it changes; without it nothing has another name."""
    assert alias_of("a", tmp_path) == "a"
    write(tmp_path, {"a": "b"})
    assert alias_of("a", tmp_path) == "b"
    write(tmp_path, {"a": "demo"})
    assert alias_of("a", tmp_path) == "demo"


def test_the_environment_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that is named but missing is an error: the program would get another model."""
    other = tmp_path / "other.json"
    monkeypatch.setenv("QUINTET_ALIASES", str(other))
    with pytest.raises(ModelFormatError, match="QUINTET_ALIASES"):
        alias_of("a")
    other.write_text('{"a": "b"}')
    assert alias_of("a") == "b"


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": ""}', "{", '{"a": "b", "a": "c"}'])
def test_broken_files_are_refused(tmp_path: Path, content: str):
    """Said with the file's name."""
    (tmp_path / "aliases.json").write_text(content)
    with pytest.raises(ModelFormatError, match=r"aliases\.json"):
        alias_of("a", tmp_path)
