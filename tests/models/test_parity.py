"""Every architecture against transformers, from both formats.  A new one adds a row to PARITY."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from backends.steps import prefill
from models.tiny import PARITY, Row, hf_logits, make_hf, write_gguf
from quintet.backends.reference import ReferenceExecutor
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model

TOKENS = np.random.default_rng(7).integers(0, 160, 75).tolist()
BLOCKS = [9, 2, 5, 1, 7]  # out of order: attention must go through the table


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(params=PARITY, ids=lambda row: row.id)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def test_reference_logits_equal_transformers_from_safetensors(row, tmp_path):
    """A Hugging Face directory gives the logits of transformers within 1e-4."""
    model = make_hf(row, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=10)
        found = prefill(executor, TOKENS, BLOCKS, chunk=len(TOKENS))
    assert relative_error(found, hf_logits(model, TOKENS)) < 1e-4


@pytest.mark.parametrize("row", [r for r in PARITY if r.gguf_arch], ids=lambda row: row.id)
def test_reference_logits_equal_transformers_from_gguf(row, tmp_path):
    """A GGUF file of the same weights gives the same logits."""
    model = make_hf(row, tmp_path)
    write_gguf(row, model, tmp_path / "model.gguf", gguf.GGMLQuantizationType.F32)
    with GGUFFile.open(tmp_path / "model.gguf") as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=10)
        found = prefill(executor, TOKENS, BLOCKS, chunk=len(TOKENS))
    assert relative_error(found, hf_logits(model, TOKENS)) < 1e-4


def test_reference_logits_do_not_depend_on_chunking(row, tmp_path):
    """Token by token, in sevens and at once agree to rounding."""
    make_hf(row, tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=10)
        whole = prefill(executor, TOKENS, BLOCKS, chunk=len(TOKENS))
        for chunk in (1, 7):
            found = prefill(executor, TOKENS, BLOCKS, chunk=chunk)
            assert relative_error(found, whole) < 1e-5
