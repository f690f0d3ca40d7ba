"""From a model's file to an engine."""

from pathlib import Path

import pytest

from engine.fake import run_all
from engine.tiny_model import BOS, CONTEXT_LENGTH, IM_END, write_tiny_hf_model
from quintet.config import EngineConfig
from quintet.engine.loading import ModelOptions, load
from quintet.engine.request import Request
from quintet.errors import CapacityError, ModelFormatError, RequestError
from quintet.sampling.params import SamplingParams

GREEDY = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)
REQUEST = Request("a", (5, 6, 7), GREEDY)


def answer(path: Path, **options: object) -> tuple[int, ...]:
    """Greedy tokens of the model at `path`."""
    engine = load(path, ModelOptions(**options), EngineConfig()).engine
    try:
        return run_all(engine, [REQUEST])["a"].token_ids
    finally:
        engine.close()


def test_loading_gives_one_model_from_every_kind_of_file(tiny_model: Path, tmp_path: Path) -> None:
    """A GGUF file, a Hugging Face directory and the two backends agree."""
    write_tiny_hf_model(tmp_path)
    expected = answer(tiny_model, backend="reference")
    assert answer(tmp_path, backend="reference") == expected
    assert answer(tmp_path / "model.safetensors", backend="reference") == expected
    assert answer(tiny_model, dtype="float32") == expected
    assert answer(tmp_path, backend="cpu", dtype="float32", num_threads=1) == expected


def test_loading_reads_how_an_answer_ends(tiny_model: Path, tmp_path: Path) -> None:
    """End tokens come from the tokenizer and from generation_config.json."""
    write_tiny_hf_model(tmp_path)
    for path in (tiny_model, tmp_path):
        engine = load(path, ModelOptions(), EngineConfig()).engine
        assert {BOS, IM_END} <= engine._eos_ids
        engine.close()


def test_loading_sizes_the_cache(tiny_model: Path) -> None:
    """Context and blocks follow from the model and the options."""
    config = EngineConfig(max_num_seqs=2, max_model_len=100)
    engine = load(tiny_model, ModelOptions(), config).engine
    assert engine.limits.max_model_len == 100
    assert engine.stats().num_blocks == 14
    engine.close()
    with pytest.raises(CapacityError, match=f"{CONTEXT_LENGTH} tokens"):
        load(
            tiny_model,
            ModelOptions(),
            EngineConfig(kv_cache_bytes=5000, max_model_len=CONTEXT_LENGTH),
        )


def test_loading_refuses_a_file_that_is_no_model(tmp_path: Path) -> None:
    """A broken file is a ModelFormatError."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03")
    with pytest.raises(ModelFormatError):
        load(path, ModelOptions(), EngineConfig())


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("backend", "cuda"), ("dtype", "int3"), ("kv_dtype", "int4"), ("num_threads", 0)],
)
def test_loading_refuses_unknown_options(parameter: str, value: object) -> None:
    """A misspelt option is refused by name, with the choices."""
    with pytest.raises(RequestError, match="expected") as caught:
        ModelOptions(**{parameter: value})
    assert caught.value.parameter == parameter
