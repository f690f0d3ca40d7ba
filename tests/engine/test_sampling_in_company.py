"""Every way of sampling gives the same tokens alone, in company and after preemption."""

from typing import Any

import pytest

from engine.fake import FakeExecutor, make_engine, make_request, run_all, run_alone
from quintet.sampling import TokenSequences

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "nucleus": {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
    "typical": {"temperature": 1.0, "typical_p": 0.8},
    "top-n-sigma": {"temperature": 1.5, "top_n_sigma": 1.5},
    "dynamic temperature": {"temperature": 0.8, "dynatemp_range": 0.6},
    "xtc": {"temperature": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.05},
    "dry": {"temperature": 0.7, "dry_multiplier": 0.8, "dry_penalty_last_n": 30},
    "mirostat": {"temperature": 1.0, "mirostat": 1, "mirostat_tau": 2.0},
    "mirostat 2": {"temperature": 1.0, "mirostat": 2, "mirostat_tau": 2.0},
    "penalties": {
        "temperature": 1.0,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.2,
        "penalty_last_n": 20,
    },
    "temperature last": {
        "temperature": 1.4,
        "top_p": 0.8,
        "min_p": 0.05,
        "sampler_order": ["top_p", "min_p", "temperature"],
    },
    "several": {"temperature": 1.0, "n": 3},
    "scored": {"temperature": 1.0, "prompt_logprobs": 1, "logprobs": 2},
    "processed": {
        "temperature": 1.0,
        "logits_processors": [lambda _, out, x: x * (1 + len(out) % 2)],
    },
}


def tokens_by_index(chunks: list[Any]) -> dict[int, tuple[int, ...]]:
    """The tokens of each answer."""
    found: dict[int, tuple[int, ...]] = {}
    for chunk in chunks:
        found[chunk.index] = found.get(chunk.index, ()) + chunk.token_ids
    return found


@pytest.mark.parametrize("first", WAYS)
def test_sampling_together_is_as_alone(first: str) -> None:
    """Beside every other way, short of blocks, each request gets the tokens it gets alone."""
    requests = [
        make_request(10 + 3 * place, 30, seed=place, **WAYS[name])
        for place, name in enumerate([first, *(name for name in WAYS if name != first)])
    ]
    engine = make_engine(FakeExecutor(num_blocks=16), max_num_seqs=7, max_num_batched_tokens=40)
    outputs = run_all(engine, requests)
    assert engine.stats().num_preemptions > 0
    for request in requests:
        found = tokens_by_index(outputs[request.request_id].chunks)
        assert found == tokens_by_index(run_alone(request).chunks)
        assert {len(tokens) for tokens in found.values()} == {30}
        logprobs = [chunk.logprobs for chunk in outputs[request.request_id].chunks]
        assert all((entry is None) == (request.params.logprobs is None) for entry in logprobs)


def test_sampling_breakers_come_from_the_vocabulary() -> None:
    """The engine has DRY's breakers resolved once per request that uses DRY, and honours them."""
    asked: list[tuple[str, ...]] = []

    def resolve(breakers: Any) -> TokenSequences:
        asked.append(tuple(breakers))
        return TokenSequences([(9,)])

    prompt = [9, 1, 2, 3, 4, 9, 1, 2, 3]  # repeats three tokens, four with the breaker
    ways = {"dry_multiplier": 50.0, "dry_base": 1.0, "logit_bias": {4: 40}}
    plain, other = make_request(prompt, 1, **ways), make_request(prompt, 1)
    engine = make_engine(resolve_breakers=resolve)
    outputs = run_all(engine, [plain, other])
    assert asked == [plain.params.dry_sequence_breakers]
    assert outputs[plain.request_id].token_ids != (4,)
    allowed = make_request(prompt, 1, dry_allowed_length=4, **ways)
    engine = make_engine(resolve_breakers=lambda _: TokenSequences([(9,)]))
    assert run_all(engine, [allowed])[allowed.request_id].token_ids == (4,)
    engine = make_engine(resolve_breakers=lambda _: None)
    assert run_all(engine, [allowed])[allowed.request_id].token_ids != (4,)
