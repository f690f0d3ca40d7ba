"""densecore.quantize."""

from __future__ import annotations

from pathlib import Path

import pytest

from densecore import DenseCore
from densecore.exceptions import InvalidConfigError, ModelLoadError
from densecore.quantize import FORMATS, QuantConfig, quantize_model
from quintet.tools.inspect import inspect_model

pytest.importorskip("quintet.tools.quantize")


def test_defaults_are_the_references():
    """As printed there."""
    assert QuantConfig() == QuantConfig(format="q4_k_m", algorithm="q4_k_m", block_size=32)


@pytest.mark.parametrize("format", FORMATS)
def test_a_model_in_fewer_bits_answers(tmp_path: Path, format: str, model: DenseCore):
    """Each format loads; the larger ones answer as before."""
    output = tmp_path / "out.gguf"
    seen: list[tuple[int, int, str]] = []
    quantize_model(
        "demo", output, QuantConfig(format=format), lambda *progress: seen.append(progress)
    )
    assert seen[-1][0] == seen[-1][1] == 57
    assert inspect_model(output).num_parameters == 4_459_904
    with DenseCore(str(output)) as small:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = small.chat(question, max_tokens=20, temperature=0)
    assert answer
    if format == "q8_0":
        assert answer == model.chat(question, max_tokens=20, temperature=0)


def test_an_algorithm_alone_names_the_format():
    """Two that contradict each other are refused."""
    assert QuantConfig(algorithm="q8_0").type == QuantConfig(format="q8_0").type == "Q8_0"
    assert QuantConfig().type == "Q4_K_M"
    with pytest.raises(InvalidConfigError, match="algorithm"):
        assert QuantConfig(format="q4_0", algorithm="q8_0").type


@pytest.mark.parametrize("wrong", [{"format": "int4"}, {"algorithm": "awq"}, {"block_size": 128}])
def test_what_there_is_not_is_refused(wrong: dict[str, object]):
    """With the name of the field."""
    with pytest.raises(InvalidConfigError, match=next(iter(wrong))):
        QuantConfig(**wrong)


def test_errors_are_densecores(tmp_path: Path):
    """A missing input, and a folder as output."""
    with pytest.raises(ModelLoadError, match="nonexistent"):
        quantize_model("nonexistent.gguf", tmp_path / "out.gguf")
    with pytest.raises(InvalidConfigError, match="output"):
        quantize_model("demo", tmp_path)
    assert not list(tmp_path.iterdir())
