"""What the native backend shows of a step, against the reference executor in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backends.steps import Seq, step_input
from models.tiny import PARITY, make_hf
from quintet.backends.base import StepInput
from quintet.backends.cpu import CPUExecutor
from quintet.backends.reference import ReferenceExecutor
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import Model, load_model

NUM_TOKENS = 45
ROWS = {row.id: row for row in PARITY}


TOKENS = np.random.default_rng(8).integers(0, 160, NUM_TOKENS).tolist()
BLOCKS = [2, 0, 1]


def chunks(size: int = NUM_TOKENS) -> list[StepInput]:
    """All tokens, some at a time."""
    steps = []
    sequence = Seq(TOKENS, BLOCKS)
    while sequence.num_computed < NUM_TOKENS:
        steps.append(step_input([(sequence, size)]))
        sequence.num_computed += size
    return steps


def executor(model: Model, **overrides) -> CPUExecutor:
    options = {
        "num_blocks": 3,
        "max_num_batched_tokens": NUM_TOKENS,
        "max_logits_rows": NUM_TOKENS,
        "weight_dtype": "float32",
        "kv_dtype": "float32",
        "num_threads": 2,
    }
    return CPUExecutor(model, **{**options, **overrides})


def seen(executor, steps: list[StepInput]) -> dict[tuple[str, int], np.ndarray]:
    """Rows by weight and matrix, over all steps."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}

    def observer(names, matrix, rows):
        for name in names:
            found.setdefault((name, matrix), []).append(rows.copy())

    for step in steps:
        executor.run_observed(step, observer)
    return {key: np.concatenate(parts) for key, parts in found.items()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an ordinary model."""
    path = tmp_path_factory.mktemp("qwen3")
    make_hf(ROWS["qwen3"], path)
    return path


# Fused and shared inputs, two norms around each half, experts of every kind of routing, sinks.
@pytest.mark.parametrize("name", ["qwen3", "phi3", "gemma3", "mixtral", "gpt-oss", "deepseek3"])
def test_every_weight_is_shown_what_the_reference_gives_it(name, tmp_path):
    """Norms, matrices and each expert's, once; and the logits of a plan that can be observed are
    those of one that cannot, bit for bit."""
    make_hf(ROWS[name], tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        model = load_model(source)
        (step,) = chunks()
        expected = seen(ReferenceExecutor(model, num_blocks=3, dtype=np.float64), [step])
        observed = executor(model, observed=lambda _: True)
        found = seen(observed, [step])
        assert found.keys() == expected.keys()
        for key, rows in expected.items():
            assert found[key].shape == rows.shape, key
            scale = np.abs(rows).max()
            np.testing.assert_allclose(found[key] / scale, rows / scale, atol=2e-5, err_msg=key)
        plain = executor(model)
        np.testing.assert_array_equal(observed.run(step), plain.run(step))
        np.testing.assert_array_equal(observed.run_hidden(step), plain.run_hidden(step))


def test_rows_shown_do_not_depend_on_threads_or_chunks(directory):
    """The same bits from 1 and 3 threads, in one step and in three."""
    with SafetensorsDir.open(directory) as source:
        model = load_model(source)
        whole = seen(executor(model, num_threads=1, observed=lambda _: True), chunks())
        parts = seen(executor(model, num_threads=3, observed=lambda _: True), chunks(15))
    assert whole.keys() == parts.keys()
    for key in whole:
        np.testing.assert_array_equal(whole[key], parts[key])


def test_only_wanted_weights_are_shown(directory):
    """By name; the output matrix, which is above the head, never."""
    with SafetensorsDir.open(directory) as source:
        model = load_model(source)
        down = executor(model, observed=lambda name: name.endswith("ffn_down.weight"))
        assert {name for name, _ in seen(down, chunks())} == {
            f"blk.{i}.ffn_down.weight" for i in range(3)
        }
        head = executor(model, observed=lambda name: name == "output.weight")
        assert not seen(head, chunks())


def test_an_observers_error_ends_the_step_and_nothing_else(directory):
    """It reaches the caller; the executor runs on as if nothing had been."""
    with SafetensorsDir.open(directory) as source:
        model = load_model(source)
        observed = executor(model, observed=lambda _: True)
        (step,) = chunks()
        calls = []

        def observer(names, matrix, rows):
            calls.append(names)
            if len(calls) == 5:
                raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            observed.run_observed(step, observer)
        assert len(calls) == 5
        np.testing.assert_array_equal(observed.run(step), executor(model).run(step))
        small = executor(model, observed=lambda _: True, max_logits_rows=2)
        with pytest.raises(ValueError, match="logits_rows"):
            small.run_observed(step, observer)
