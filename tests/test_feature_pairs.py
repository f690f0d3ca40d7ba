"""Every two features together: each answer is the one the plain engine gives, to the last bit.

The plain engine runs one request at a time, without guesses and with ample memory.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.fake import Costless
from engine.tiny_model import write_tiny_model
from quintet import LLM, AsyncLLM, Constraint, RequestOutput, SamplingParams
from quintet.engine.output import Answer, OutputChunk
from quintet.engine.request import Request
from quintet.sampling import Constraint

FACTORS: dict[str, dict[str, Any]] = {
    "sampling": {
        "greedy": {"temperature": 0.0},
        "random": {"temperature": 0.9, "top_p": 0.9},
        "penalties": {"temperature": 0.7, "repetition_penalty": 1.3, "frequency_penalty": 0.5},
        "mirostat": {"temperature": 1.0, "mirostat": 2},
        "dry and xtc": {"temperature": 0.8, "dry_multiplier": 0.8, "xtc_probability": 0.5},
    },
    "guesses": {
        "none": {},
        "ngram": {"ngram_speculation": True},
        "draft": {"draft_model": True},
    },
    "form": {
        "free": {},
        "regex": {"constraint": Constraint.regex("([abx ]{1,9}, )*")},
        "json": {"constraint": Constraint.json_schema({"items": {"type": "integer"}})},
    },
    "logprobs": {"none": {}, "two": {"logprobs": 2}, "prompt": {"prompt_logprobs": 1}},
    "delivery": {"whole": "generate", "stream": "stream", "async": "async"},
    "n": {"one": {}, "three": {"n": 3}},
    "end": {
        "length": {"ignore_eos": True},
        "strings": {"stop": ["a", "\n", "qu"], "min_tokens": 4, "ignore_eos": True},
        "tokens": {"stop_token_ids": list(range(0, 250, 9)), "min_tokens": 2},
    },
    "constraint": {
        "none": {},
        "regex": {"constraint": Constraint.regex("[a-z ]{3,80}")},
        "choice": {"constraint": Constraint.choice(["to be", "or not", "abababab"])},
    },
    "memory": {"ample": 2**22, "scarce": 2**16},
    "length": {"error": {}, "slide": {"overflow": "slide", "num_keep_tokens": 16}},
}
PROMPTS = ["abababababab", "Once upon a time", "x" * 60, "to be or not to be, to be or not to "]
NAMES = tuple(FACTORS)


def pairs(case: Sequence[str]) -> set[tuple[str, str, str, str]]:
    """The pairs of levels that a case covers."""
    named = list(zip(NAMES, case, strict=True))
    return {(*a, *b) for a, b in itertools.combinations(named, 2)}


def covering_cases() -> list[tuple[str, ...]]:
    """Cases that together have every two levels of every two factors; greedily chosen."""
    candidates = list(itertools.product(*(FACTORS[name] for name in NAMES)))
    missing = set().union(*map(pairs, candidates))
    cases = []
    while missing:
        best = max(
            candidates[:: max(1, len(candidates) // 997)], key=lambda c: len(pairs(c) & missing)
        )
        if not pairs(best) & missing:
            best = next(c for c in candidates if pairs(c) & missing)
        cases.append(best)
        missing -= pairs(best)
    return cases


CASES = covering_cases()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="module")
def plain(model: Path) -> Iterator[LLM]:
    with LLM(model, num_threads=1, kv_cache_bytes=2**22, max_model_len=96) as llm:
        yield llm


def content(output: RequestOutput) -> tuple:
    """All of an output but ids and times, and what the prefix cache spared."""
    usage = output.usage
    return (
        output.choices,
        output.prompt_logprobs,
        (usage.num_prompt_tokens, usage.num_generated_tokens, usage.num_dropped_tokens),
    )


def test_the_cases_cover_every_pair() -> None:
    """The matrix is what it says, and small enough to run always."""
    levels = {(name, level) for name in NAMES for level in FACTORS[name]}
    expected = {
        (*a, *b)
        for a, b in itertools.combinations(sorted(levels, key=lambda x: NAMES.index(x[0])), 2)
        if a[0] != b[0]
    }
    assert set().union(*map(pairs, CASES)) == expected
    assert len(CASES) < 40


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_features_together_change_no_answer(case: tuple[str, ...], model: Path, plain: LLM) -> None:
    """Guesses, memory, company and the way of delivery are invisible in what is answered."""
    levels = dict(zip(NAMES, case, strict=True))
    chosen = {name: FACTORS[name][level] for name, level in levels.items()}
    params = [
        SamplingParams(
            max_tokens=70 if levels["length"] == "slide" else 30,
            seed=i,
            **chosen["sampling"],
            **chosen["form"],
            **chosen["logprobs"],
            **chosen["n"],
            **chosen["end"],
            **chosen["constraint"],
        )
        for i in range(len(PROMPTS))
    ]
    expected = [
        content(plain.generate(prompt, one, **chosen["length"])[0])
        for prompt, one in zip(PROMPTS, params, strict=True)
    ]
    options = dict(chosen["guesses"])
    if "draft_model" in options:
        options["draft_model"] = model
    options |= {"num_threads": 1, "kv_cache_bytes": chosen["memory"], "max_model_len": 96}

    if chosen["delivery"] == "async":
        outputs = asyncio.run(asked_async(model, options, params, chosen["length"]))
    else:
        with LLM(model, **options) as llm:
            guess_always(llm._runtime)
            if chosen["delivery"] == "stream":
                outputs = streamed(llm, params, chosen["length"])
            else:
                outputs = llm.generate(PROMPTS, params, **chosen["length"])
            llm.audit()
            if levels["guesses"] != "none":
                assert llm.stats().num_draft_tokens > 0
            assert llm.stats().num_used_blocks == 0
    assert [content(output) for output in outputs] == expected


def guess_always(runtime: Any) -> None:
    """Whatever the machine's speed: it is the answers that are tested."""
    runtime.client._engine._speculator._cost = Costless()


def streamed(llm: LLM, params: list[SamplingParams], options: dict) -> list[RequestOutput]:
    """The four streams read in turns, a chunk at a time."""
    streams = [llm.stream(p, one, **options) for p, one in zip(PROMPTS, params, strict=True)]
    chunks: list[list[OutputChunk]] = [[] for _ in streams]
    for turn in itertools.zip_longest(*streams):
        for own, chunk in zip(chunks, turn, strict=True):
            if chunk is not None:
                own.append(chunk)
    return [assembled(llm, *each) for each in zip(PROMPTS, params, chunks, strict=True)]


def assembled(
    llm: LLM, prompt: str, params: SamplingParams, chunks: list[OutputChunk]
) -> RequestOutput:
    token_ids = llm.tokenizer.encode(prompt, add_special=True, parse_special=True)
    answer = Answer(Request(chunks[0].request_id, tuple(token_ids), params))
    for chunk in chunks:
        answer.add(chunk)
    return answer.output()


async def asked_async(
    model: Path, options: dict, params: list[SamplingParams], request_options: dict
) -> list[RequestOutput]:
    async with AsyncLLM(model, **options) as llm:
        guess_always(llm._loaded)
        answers = await asyncio.gather(
            *(
                llm.generate(prompt, one, **request_options)
                for prompt, one in zip(PROMPTS, params, strict=True)
            )
        )
        await llm.audit()
        return [output for (output,) in answers]
