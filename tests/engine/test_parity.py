"""The engine over real arithmetic, against transformers."""

from pathlib import Path

import numpy as np
import pytest

from engine.fake import FakeDetokenizer, make_request, run_all
from models.tiny import PARITY, hf_logits, make_hf
from quintet.backends.reference import ReferenceExecutor
from quintet.config import EngineConfig
from quintet.engine.engine import Engine
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model


@pytest.mark.parametrize("row", [PARITY[0], PARITY[-1]], ids=lambda row: row.id)
def test_prompt_logprobs_equal_transformers(row, tmp_path: Path) -> None:
    """Prompt tokens get transformers' log-softmax, in chunks of any size."""
    model = make_hf(row, tmp_path)
    prompt = np.random.default_rng(2).integers(0, 160, 45).tolist()
    logits = hf_logits(model, prompt)
    wanted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    with SafetensorsDir.open(tmp_path) as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=16, max_num_batched_tokens=64)
    for max_num_batched_tokens in (64, 13):
        config = EngineConfig(max_num_seqs=8, max_num_batched_tokens=max_num_batched_tokens)
        engine = Engine(
            executor,
            lambda *_: FakeDetokenizer(),
            eos_ids=frozenset(),
            max_model_len=200,
            config=config,
        )
        request = make_request(prompt, 2, prompt_logprobs=4)
        found = run_all(engine, [request])[request.request_id].chunks[0].prompt_logprobs
        assert found is not None
        assert found[0] is None
        for place, entry in enumerate(found[1:]):
            assert entry is not None
            assert entry.logprob == pytest.approx(wanted[place, prompt[place + 1]], abs=1e-4)
            best = np.argsort(-wanted[place])[:4]
            assert [token_id for token_id, _ in entry.top] == best.tolist()
