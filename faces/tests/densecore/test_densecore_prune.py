"""densecore.prune."""

from __future__ import annotations

from pathlib import Path

import pytest

from densecore import DenseCore
from densecore.exceptions import InvalidConfigError, ModelLoadError
from densecore.prune import PruneConfig, prune_model
from quintet.formats.gguf import GGUFFile


def test_defaults_are_the_references():
    """As printed there."""
    assert PruneConfig() == PruneConfig(
        strategy="depth", target_n_layer=None, importance_method="magnitude"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "height"},
        {"importance_method": "luck"},
        {"target_n_layer": 2, "strategy": "width"},
        {"calibration_text": "x"},
    ],
)
def test_what_there_is_not_is_refused(wrong: dict[str, object]):
    """With the name of the field."""
    with pytest.raises(InvalidConfigError, match=next(iter(wrong))):
        PruneConfig(**wrong)


def shape(path: Path) -> tuple[int, int, int]:
    """Layers, neurons and heads."""
    with GGUFFile.open(path) as file:
        names = ("block_count", "feed_forward_length", "attention.head_count")
        return tuple(file.metadata[f"qwen3.{name}"] for name in names)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"target_n_layer": 3}, (3, 768, 4)),
        ({"target_n_layer": 3, "importance_method": "l2_norm"}, (3, 768, 4)),
        ({"target_n_layer": 3, "importance_method": "activation"}, (3, 768, 4)),
        ({"strategy": "width", "width_ratio": 0.5}, (5, 384, 4)),
        ({"strategy": "attention", "head_ratio": 0.5}, (5, 768, 2)),
        ({"strategy": "combined", "target_n_layer": 4, "head_ratio": 0.5}, (4, 576, 2)),
    ],
)
def test_a_pruned_model_answers(
    tmp_path: Path, config: dict[str, object], expected: tuple[int, int, int]
):
    """Each strategy and each importance give a model of its shape that loads."""
    pytest.importorskip("quintet.tools.prune")
    output = tmp_path / "out.gguf"
    seen: list[tuple[int, int, str]] = []
    prune_model(
        "demo",
        output,
        PruneConfig(**config),
        lambda *progress: seen.append(progress),
    )
    assert seen[-1][0] == seen[-1][1] > 30
    assert shape(output) == expected
    with DenseCore(str(output)) as small:
        assert small.generate("The capital of", max_tokens=5, temperature=0)


def test_errors_are_densecores(tmp_path: Path):
    """A missing input, and more layers than there are."""
    pytest.importorskip("quintet.tools.prune")
    with pytest.raises(ModelLoadError, match="nonexistent"):
        prune_model("nonexistent.gguf", tmp_path / "out.gguf")
    with pytest.raises(InvalidConfigError):
        prune_model("demo", tmp_path / "out.gguf", PruneConfig(target_n_layer=99))
    assert not list(tmp_path.iterdir())
