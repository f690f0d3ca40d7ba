"""Every field of SamplingParams acts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import quintet
from nano_qwen3_serving import LLM, SamplingParams
from nano_qwen3_serving.exceptions import InvalidParametersError

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(device="cpu") as model:
        yield model


def text(llm: LLM, **options: object) -> str:
    return llm.generate_single(PROMPT, SamplingParams(**{"max_tokens": 16, **options}))[
        "generated_text"
    ]


def test_ways_to_take_the_most_probable_token(llm: LLM):
    """SamplingParams(temperature=0), do_sample=False, top_k=1 and top_p=0 are the same."""
    greedy = llm.generate_single(PROMPT, SamplingParams.greedy(max_tokens=16))["generated_text"]
    assert text(llm, temperature=0.0) == greedy
    assert text(llm, temperature=5.0, do_sample=False) == greedy
    assert text(llm, temperature=5.0, top_k=1) == greedy
    assert text(llm, temperature=5.0, top_p=0.0) == greedy
    assert text(llm, temperature=5.0) != greedy


def test_ends(llm: LLM):
    """SamplingParams: stop_sequences, stop_token_ids, max_tokens and min_tokens."""
    whole = llm.generate_single(PROMPT, SamplingParams.greedy(16))
    cut = SamplingParams(temperature=0.0, max_tokens=16, stop_sequences=["in", "garden"])
    assert (
        llm.generate_single(PROMPT, cut)["generated_text"]
        == (whole["generated_text"][: whole["generated_text"].index("in")])
    )
    ids = [c["token_id"] for c in llm.generate_stream(PROMPT, SamplingParams.greedy(16))]
    stopped = SamplingParams(temperature=0.0, max_tokens=16, stop_token_ids=[ids[3]])
    assert llm.generate_single(PROMPT, stopped)["tokens_generated"] == 4
    late = SamplingParams(temperature=0.0, max_tokens=16, min_tokens=9, stop_token_ids=[ids[3]])
    assert llm.generate_single(PROMPT, late)["tokens_generated"] >= 9


def test_repetition_penalty(llm: LLM):
    """SamplingParams(repetition_penalty) keeps an answer from repeating itself."""
    free = text(llm, temperature=0.0, max_tokens=60)
    bound = text(llm, temperature=0.0, max_tokens=60, repetition_penalty=5.0)
    assert len(set(bound.split())) / len(bound.split()) > len(set(free.split())) / len(free.split())


def test_beam_search_is_quintets(llm: LLM):
    """SamplingParams(use_beam_search, num_beams, length_penalty): the best of that search."""
    with quintet.LLM("demo", shared=True) as peer:
        for length_penalty in (1.0, -5.0):
            params = SamplingParams(
                use_beam_search=True, num_beams=4, max_tokens=12, length_penalty=length_penalty
            )
            result = llm.generate_single(PROMPT, params)
            (output,) = peer.beam_search(
                PROMPT,
                quintet.BeamSearchParams(
                    beam_width=4, max_tokens=12, length_penalty=length_penalty
                ),
            )
            assert result["generated_text"] == output.text
            assert result["tokens_generated"] == len(output.beams[0].token_ids)
            assert result["block_indices"]
            chunks = list(llm.generate_stream(PROMPT, params))
            assert chunks[-1]["text"] == output.text
            assert [chunk["finished"] for chunk in chunks].index(True) == len(chunks) - 1


def test_beam_search_stops_where_it_should(llm: LLM):
    """The best answer is cut at stop_sequences and stop_token_ids."""
    options = {"use_beam_search": True, "num_beams": 2, "max_tokens": 12}
    whole = text(llm, **options)
    word = whole.split()[3]
    assert text(llm, stop_sequences=[word], **options) == whole[: whole.index(word)]
    ids = [c["token_id"] for c in llm.generate_stream(PROMPT, SamplingParams(**options))]
    cut = llm.generate_single(PROMPT, SamplingParams(stop_token_ids=[ids[4]], **options))
    assert cut["tokens_generated"] == ids.index(ids[4]) + 1
    assert whole.startswith(cut["generated_text"])
    chunks = list(llm.generate_stream(PROMPT, SamplingParams(stop_sequences=[word], **options)))
    assert chunks[-1]["text"] == whole[: whole.index(word)]
    assert chunks[-1]["finished"]


def test_use_cache(llm: LLM):
    """SamplingParams(use_cache=False) neither finds nor leaves a prefix."""
    prompt = "some words to remember " * 20
    for use_cache, hits in ((False, False), (False, False), (True, False), (True, True)):
        llm.clear_stats()
        llm.generate_single(prompt, SamplingParams(max_tokens=2, use_cache=use_cache))
        assert (llm.get_stats()["cache_hit_rate"] > 0) is hits


def test_cache_precision(llm: LLM):
    """SamplingParams(cache_precision) is the precision of keys and values."""
    for ours, theirs in (("float32", "float32"), ("int8", "int8"), ("float16", "bfloat16")):
        with quintet.LLM("demo", kv_dtype=theirs, shared=True, num_kv_blocks=64) as peer:
            (output,) = peer.generate(PROMPT, quintet.SamplingParams.greedy(40))
        params = SamplingParams(temperature=0.0, max_tokens=40, cache_precision=ours)
        assert llm.generate_single(PROMPT, params)["generated_text"] == output.text
    assert set(llm._engines) == {"float16", "float32", "int8"}


def test_presets_and_their_words():
    """SamplingParams.greedy, creative and balanced; to_dict; str."""
    assert SamplingParams.greedy(max_tokens=7).temperature == 0.0
    assert SamplingParams.creative(max_tokens=7).max_tokens == 7
    assert SamplingParams.balanced(max_tokens=7).temperature == 0.7
    params = SamplingParams(temperature=0.5, stop_sequences=["x"])
    assert SamplingParams(**params.to_dict()) == params
    assert str(params) == "SamplingParams(temperature=0.5, stop_sequences=['x'])"
    assert params.__str__() == f"{params}"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"length_penalty": float("inf")}, "length_penalty"),
        ({"num_beams": 0}, "num_beams"),
        ({"cache_precision": "float8"}, "cache_precision"),
        ({"use_beam_search": True, "repetition_penalty": 1.5}, "repetition_penalty"),
        ({"use_beam_search": True, "min_tokens": 2}, "min_tokens"),
        ({"use_beam_search": True, "use_cache": False}, "use_cache"),
    ],
)
def test_what_is_out_of_range_is_named(options: dict, name: str):
    """By this interface's own name."""
    with pytest.raises(InvalidParametersError, match=f"^{name}: "):
        SamplingParams(**options)
