"""The reference backend's edges; its arithmetic is tested in tests/models against transformers."""

from pathlib import Path

import numpy as np
import pytest

from engine.fake import FakeDetokenizer, make_request, run_all
from models.tiny import PARITY, make_hf
from quintet.backends.reference import ReferenceExecutor
from quintet.config import EngineConfig
from quintet.engine.engine import Engine
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model


@pytest.mark.parametrize("max_num_batched_tokens", [64, 16])
def test_reference_steps_may_ask_for_no_logits(max_num_batched_tokens: int, tmp_path: Path) -> None:
    """A prompt longer than a step has steps in its middle that sample nothing."""
    make_hf(PARITY[0], tmp_path)
    with SafetensorsDir.open(tmp_path) as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=16, max_num_batched_tokens=64)
    engine = Engine(
        executor,
        lambda *_: FakeDetokenizer(),
        eos_ids=frozenset(),
        max_model_len=200,
        config=EngineConfig(max_num_seqs=4, max_num_batched_tokens=max_num_batched_tokens),
    )
    request = make_request(np.arange(40).tolist(), 4)
    output = run_all(engine, [request])[request.request_id]
    assert output.last.finish_reason == "length"
    assert len(output.token_ids) == 4
