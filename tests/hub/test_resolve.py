"""Model names and paths."""

from pathlib import Path

import pytest

from quintet.errors import ModelNotFoundError
from quintet.hub import resolve as resolve_module
from quintet.hub.resolve import resolve


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packaged models that has "demo"."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "demo.gguf").touch()
    monkeypatch.setattr(resolve_module, "_PACKAGED", folder)
    return folder


def test_resolve_finds_a_packaged_model_by_name(packaged: Path) -> None:
    """A name is enough for a model that comes with the package."""
    assert resolve("demo") == packaged / "demo.gguf"


def test_resolve_takes_paths_as_they_are(packaged: Path, tmp_path: Path) -> None:
    """An existing file or directory is itself, as text or as a path."""
    path = tmp_path / "model.gguf"
    path.touch()
    assert resolve(path) == path
    assert resolve(str(tmp_path)) == tmp_path


def test_resolve_prefers_a_name_to_a_path(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that happens to be called "demo" is reached as ./demo."""
    monkeypatch.chdir(tmp_path)
    Path("demo").touch()
    assert resolve("demo") == packaged / "demo.gguf"
    assert resolve("./demo") == Path("demo")


def test_resolve_lists_the_models_there_are(packaged: Path) -> None:
    """An unknown name is answered with the known ones."""
    with pytest.raises(ModelNotFoundError, match=r"'nonsense'.*models by name: demo"):
        resolve("nonsense")
