"""Sixteen requests together give what the same sixteen give alone, bit for bit."""

from pathlib import Path

import pytest

from engine.fake import Collected, Costless, FakeDetokenizer, run_all
from engine.tiny_model import CONTEXT_LENGTH
from quintet._native import kernels_info
from quintet.backends.cpu import CPUExecutor
from quintet.config import EngineConfig, NgramSpeculation
from quintet.engine.engine import Engine
from quintet.engine.request import Request
from quintet.formats.gguf import GGUFFile
from quintet.models import load_model
from quintet.sampling.params import SamplingParams


class Silent(FakeDetokenizer):
    """The text does not matter here."""

    def push(self, token_id: int) -> str:
        return ""


def make_engine(
    path: Path,
    kernels: str,
    dtypes: tuple[str, str],
    *,
    num_blocks: int,
    num_threads: int = 2,
    **options: object,
) -> Engine:
    config = EngineConfig(seed=0, **options)
    with GGUFFile.open(path) as source:
        executor = CPUExecutor(
            load_model(source),
            num_blocks=num_blocks,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_logits_rows=config.max_logits_rows,
            weight_dtype=dtypes[0],
            kv_dtype=dtypes[1],
            num_threads=num_threads,
            kernels=kernels,
        )
    return Engine(
        executor,
        lambda *_: Silent(),
        eos_ids=frozenset(),
        max_model_len=CONTEXT_LENGTH,
        config=config,
    )


def sixteen() -> list[Request]:
    """Greedy and sampled, prompts of 3 to 108 tokens, half of them with a common start.

    The last repeats one token, so that some guesses come true whatever the model says.
    """
    return [
        Request(
            f"r{i}",
            tuple((j * j + (i % 2) * 5) % 250 for j in range(3 + 7 * i)),
            SamplingParams(
                max_tokens=12 + i,
                temperature=0.7 * (i % 3),
                seed=i,
                logprobs=1,
                ignore_eos=True,
                logit_bias={7: 100.0} if i == 15 else None,
            ),
        )
        for i in range(16)
    ]


def bits(output: Collected) -> list:
    """Tokens and log probabilities, to the last bit."""
    return [(chunk.token_ids, chunk.logprobs) for chunk in output.chunks]


@pytest.mark.parametrize(
    "dtypes",
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("int8", "bfloat16"), ("int8", "int8")],
    ids="-".join,
)
@pytest.mark.parametrize("kernels", kernels_info()["available"])
def test_sixteen_requests_together_answer_as_alone(
    tiny_model: Path, kernels: str, dtypes: tuple[str, str]
) -> None:
    """Neither neighbours, chunks, cached prefixes, preemption, guesses nor threads change a bit."""
    alone = {}
    engine = make_engine(
        tiny_model, kernels, dtypes, num_blocks=64, num_threads=1, enable_prefix_cache=False
    )
    for request in sixteen():
        alone.update(run_all(engine, [request]))
    engine.close()

    for options in (
        {"num_blocks": 256},
        {"num_blocks": 256, "max_num_batched_tokens": 40, "max_num_mixed_prefill_tokens": 7,
         "max_num_seqs": 16},
        {"num_blocks": 18},
        {"num_blocks": 256, "max_num_seqs": 16, "ngram_speculation": NgramSpeculation(min_ngram=1)},
    ):  # fmt: skip
        engine = make_engine(tiny_model, kernels, dtypes, **options)
        if "ngram_speculation" in options:
            engine._speculator._cost = Costless()
        together = run_all(engine, sixteen())
        assert {name: bits(output) for name, output in together.items()} == {
            name: bits(output) for name, output in alone.items()
        }
        if options["num_blocks"] == 18:
            assert engine.stats().num_preemptions > 0
        if "ngram_speculation" in options:
            assert engine.stats().num_accepted_tokens > 0
        engine.close()
