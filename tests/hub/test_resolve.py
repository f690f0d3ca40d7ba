"""Model names and paths."""

from pathlib import Path

import pytest

from hub.manifests import make_manifest
from quintet.errors import ModelNotFoundError, RequestError
from quintet.hub import packaged as packaged_module
from quintet.hub.resolve import resolve
from quintet.hub.store import Store


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packaged models that has "demo"."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "demo.gguf").touch()
    monkeypatch.setattr(packaged_module, "_FOLDER", folder)
    monkeypatch.setenv("QUINTET_HOME", str(tmp_path / "home"))
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


def test_resolve_finds_stored_models_whatever_the_case(packaged: Path, tmp_path: Path) -> None:
    """What was stored under a name is reached by it; the default tag may be left out."""
    file = tmp_path / "weights.gguf"
    file.touch()
    Store().save(make_manifest("Mine", file))
    assert resolve("mine") == resolve("MINE:latest") == file


def test_resolve_prefers_packaged_to_stored_to_path(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is fixed, and a leading ./ always means the file."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.gguf"
    file.touch()
    Path("mine").touch()
    Store().save(make_manifest("mine", file))
    assert resolve("mine") == file
    assert resolve("./mine") == Path("mine")
    with pytest.raises(RequestError, match="comes with Quintet"):
        Store().save(make_manifest("demo", file))


@pytest.mark.parametrize("name", ["qwen3:0.6b", "hf.co/user/repo:Q8_0"])
def test_resolve_says_how_to_get_a_model(packaged: Path, name: str) -> None:
    """A name that is not there comes with the command that fetches it."""
    with pytest.raises(ModelNotFoundError, match=f"quintet pull {name}"):
        resolve(name)


def test_resolve_says_when_the_files_have_gone(packaged: Path, tmp_path: Path) -> None:
    """A model used where it lies may lose its file; that is said, with the way out."""
    Store().save(make_manifest("mine", tmp_path / "gone.gguf"))
    with pytest.raises(ModelNotFoundError, match=r"are gone; .*quintet pull mine"):
        resolve("mine")


def test_resolve_says_when_a_link_leads_nowhere(packaged: Path, tmp_path: Path) -> None:
    """A model whose files lie in the Hugging Face cache may lose one of them."""
    store = Store()
    folder = store.link_files("a" * 64, {"config.json": tmp_path / "gone", "x": packaged})
    store.save(make_manifest("mine", folder))
    with pytest.raises(ModelNotFoundError, match=r"are gone; .*quintet pull mine"):
        resolve("mine")
    (tmp_path / "gone").touch()
    assert resolve("mine") == folder
