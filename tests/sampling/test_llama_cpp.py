"""The stages against llama.cpp's own samplers, where llama-cpp-python is installed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sampling_oracle import assert_same_distribution, make_row

from quintet.sampling import DryBreakers, SamplingParams
from quintet.tokenizer import Tokenizer

llama = pytest.importorskip("llama_cpp")

ORDER = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)


def chain(samplers: Iterable[Any], logits: NDArray[np.float32]) -> dict[int, float]:
    """Token id to probability after llama.cpp's samplers, one after the other."""
    data = (llama.llama_token_data * logits.size)()
    for i, logit in enumerate(logits):
        data[i].id, data[i].logit, data[i].p = i, float(logit), 0.0
    candidates = llama.llama_token_data_array(data, logits.size, -1, False)
    for sampler in samplers:
        llama.llama_sampler_apply(sampler, ctypes.byref(candidates))
        llama.llama_sampler_free(sampler)
    left = [candidates.data[i] for i in range(candidates.size)]
    x = np.array([item.logit for item in left], np.float64)
    p = np.exp(x - x.max())
    return {item.id: float(q) for item, q in zip(left, p / p.sum(), strict=True) if q > 0}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("values", "make"),
    [
        ({"typical_p": 0.7}, lambda: [llama.llama_sampler_init_typical(0.7, 0)]),
        ({"top_n_sigma": 1.3}, lambda: [llama.llama_sampler_init_top_n_sigma(1.3)]),
        (
            {"temperature": 0.8, "dynatemp_range": 0.5, "dynatemp_exponent": 1.5},
            lambda: [llama.llama_sampler_init_temp_ext(0.8, 0.5, 1.5)],
        ),
        (
            {"xtc_probability": 1.0, "xtc_threshold": 0.02},
            lambda: [llama.llama_sampler_init_xtc(1.0, 0.02, 0, 1)],
        ),
        (
            {"top_k": 60, "typical_p": 0.9, "top_p": 0.85, "min_p": 0.02, "temperature": 1.3},
            lambda: [
                llama.llama_sampler_init_top_k(60),
                llama.llama_sampler_init_typical(0.9, 0),
                llama.llama_sampler_init_top_p(0.85, 0),
                llama.llama_sampler_init_min_p(0.02, 0),
                llama.llama_sampler_init_temp(1.3),
            ],
        ),
        (
            {
                "top_n_sigma": 1.6,
                "top_k": 40,
                "xtc_probability": 1.0,
                "xtc_threshold": 0.04,
                "temperature": 0.7,
            },
            lambda: [
                llama.llama_sampler_init_top_n_sigma(1.6),
                llama.llama_sampler_init_top_k(40),
                llama.llama_sampler_init_xtc(1.0, 0.04, 0, 1),
                llama.llama_sampler_init_temp(0.7),
            ],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_stages_agree_with_llama_cpp(values: dict[str, Any], make: Any, seed: int) -> None:
    """In llama.cpp's order, each stage leaves what llama.cpp's sampler leaves.

    Not together: top_n_sigma and dynatemp_range.  llama.cpp counts the tokens that the one has
    excluded when the other asks how large the entropy could be; here they are gone.
    """
    logits = np.random.default_rng(seed).normal(0, 2.5, 500).astype(np.float32)
    params = SamplingParams(**values, sampler_order=ORDER)
    found = make_row(params, 500).distribution(logits)
    # llama.cpp computes in float32, the entropy and the sums included.
    assert_same_distribution(found, chain(make(), logits), tolerance=1e-3)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_agrees_with_llama_cpp(version: int) -> None:
    """The first step keeps the same candidates."""
    for seed in range(5):
        logits = np.random.default_rng(seed).normal(0, 2.5, 500).astype(np.float32)
        sampler = (
            llama.llama_sampler_init_mirostat(500, 1, 3.0, 0.1, 100)
            if version == 1
            else llama.llama_sampler_init_mirostat_v2(1, 3.0, 0.1)
        )
        found = make_row(SamplingParams(mirostat=version, mirostat_tau=3.0), 500)
        assert_same_distribution(
            found.distribution(logits), chain([sampler], logits), tolerance=1e-3
        )


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm"])
def test_dry_agrees_with_llama_cpp(name: str, shared_data: Path) -> None:
    """Over repetitive token sequences of a real vocabulary, with strings as breakers."""
    path = shared_data / "vocab" / f"ggml-vocab-{name}.gguf"
    tokenizer = Tokenizer.from_file(path)
    options = llama.llama_model_default_params()
    options.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), options)
    strings = ["\n", "the end", "*"]
    breakers = DryBreakers(
        tokenizer.vocab_size,
        tokenizer.token_bytes,
        lambda text: tokenizer.encode(text, add_special=False),
    ).sequences(strings)
    text = "Once upon a time, the end was near.\nOnce upon a time, the end of *it was near. Once"
    tokens = tokenizer.encode(text, add_special=False)
    logits = np.random.default_rng(0).normal(0, 1, tokenizer.vocab_size).astype(np.float32)
    found_any = False
    for last in range(2, len(tokens) + 1):
        for last_n in (12, 1000):
            sampler = llama.llama_sampler_init_dry(
                llama.llama_model_get_vocab(model),
                0.8,
                1.75,
                2,
                last_n,
                (ctypes.c_char_p * len(strings))(*(string.encode() for string in strings)),
                len(strings),
            )
            for token_id in tokens[:last]:
                llama.llama_sampler_accept(sampler, token_id)
            params = SamplingParams(dry_multiplier=0.8, dry_penalty_last_n=last_n)
            row = make_row(params, logits.size, prompt=tokens[:last], dry_breakers=breakers)
            found = row.distribution(logits.copy())
            assert_same_distribution(found, chain([sampler], logits), tolerance=1e-3)
            plain = make_row(SamplingParams(), logits.size).distribution(logits.copy())
            found_any |= found != plain
    assert found_any
    llama.llama_model_free(model)
