"""From a model's file to an engine."""

import errno
import os
from pathlib import Path

import pytest

from engine.fake import run_all
from engine.tiny_model import BOS, CONTEXT_LENGTH, IM_END, write_tiny_hf_model
from quintet._native import Plan
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
    [
        ("backend", "cuda"),
        ("dtype", "int3"),
        ("kv_dtype", "int4"),
        ("num_threads", 0),
        ("max_memory", 0),
        ("packed_cache", ""),
    ],
)
def test_loading_refuses_unknown_options(parameter: str, value: object) -> None:
    """A misspelt option is refused by name, with the choices."""
    with pytest.raises(RequestError, match="expected") as caught:
        ModelOptions(**{parameter: value})
    assert caught.value.parameter == parameter


def test_loading_reads_what_it_may_not_map(tiny_model: Path, tmp_path: Path) -> None:
    """Reading the files gives the model that mapping them gives."""
    write_tiny_hf_model(tmp_path)
    for path in (tiny_model, tmp_path):
        assert answer(path, use_mmap=False) == answer(path)


def test_loading_keeps_packed_weights(tiny_model: Path, tmp_path: Path) -> None:
    """The next start finds them; the answer is the same."""
    expected = answer(tiny_model)
    for _ in range(2):
        assert answer(tiny_model, packed_cache=str(tmp_path)) == expected
    assert [path.suffix for path in tmp_path.iterdir()] == [".packed"]


def locked_bytes() -> int:
    """Linux, Documentation/filesystems/proc.rst, table 1-2."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmLck"))


def test_loading_locks_weights(tiny_model: Path) -> None:
    """The weights, and no more, are locked while the model is loaded."""
    before = locked_bytes()
    engine = load(tiny_model, ModelOptions(use_mlock=True), EngineConfig()).engine
    during = locked_bytes()
    engine.close()
    size = os.path.getsize(tiny_model)
    assert before < during < before + 4 * size
    assert locked_bytes() == before


def test_loading_says_what_may_be_locked(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on locked memory is named with both numbers."""

    class Refused(Plan):
        def lock_weights(self) -> int:
            return errno.ENOMEM

    monkeypatch.setattr("quintet.backends.cpu.Plan", Refused)
    with pytest.raises(CapacityError, match=r"use_mlock: \d+ bytes .* may lock .*\(ulimit -l"):
        load(tiny_model, ModelOptions(use_mlock=True), EngineConfig())


def test_loading_keeps_a_limit_or_refuses_it(tiny_model: Path) -> None:
    """max_memory sizes the cache; where not even a block fits it says what is needed."""
    config = EngineConfig(max_num_seqs=2, max_num_batched_tokens=8)
    for limit in (4 << 20, 5 << 20):
        engine = load(tiny_model, ModelOptions(max_memory=limit), config).engine
        plan = engine._executor.plan
        assert plan.weight_bytes + plan.buffer_bytes + plan.cache_bytes <= limit
        engine.close()
    with pytest.raises(CapacityError, match="max_memory: expected at least") as caught:
        load(tiny_model, ModelOptions(max_memory=1000), config)
    assert caught.value.resource == "memory"


@pytest.mark.parametrize("options", [{"use_mlock": True}, {"packed_cache": "somewhere"}])
def test_loading_refuses_what_a_backend_has_not(
    tiny_model: Path, options: dict[str, object]
) -> None:
    """The reference backend has no packed weights to lock or keep."""
    with pytest.raises(RequestError, match="packs no weights"):
        load(tiny_model, ModelOptions(backend="reference", **options), EngineConfig())
