"""Many clients at once, some of which leave: is an answer lost or wrong, does memory grow?

    python benchmarks/load_engine.py [--model demo] [--clients 64] [--seconds 60] [--ngram]

Each client asks one question after another, of random length and priority, greedy or
sampled with a seed; three in ten leave in the middle of the answer.  Every answer that is
read to its end is compared with what the same request gave alone beforehand, every one that
is left with the beginning of it.  Exits with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from quintet import LLM, AsyncLLM, Priority, SamplingParams
from quintet.engine.stats import EngineStats

QUESTIONS = (
    "What is the capital of France?",
    "My name is Alice. What is my name?",
    "Tell me a short story about a dog.",
    "Write a haiku about the sea.",
    "Repeat after me: one two three one two three one two three",
    "Give me a JSON object with a name and an age.",
)
ABORTED = 0.3
OPTIONS = {"max_num_seqs": 32, "max_model_len": 512, "kv_cache_bytes": 5 * 2**19}


@dataclass(frozen=True)
class Ask:
    """A request that may be made many times."""

    prompt: str
    max_tokens: int
    temperature: float
    seed: int

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            ignore_eos=True,
        )


@dataclass
class Tally:
    """What the clients saw."""

    finished: Counter[Priority] = field(default_factory=Counter)
    aborted: int = 0
    wrong: list[str] = field(default_factory=list)
    latencies_s: dict[Priority, list[float]] = field(
        default_factory=lambda: {priority: [] for priority in Priority}
    )
    resident_bytes: list[int] = field(default_factory=list)


def asks() -> list[Ask]:
    """Prompts from one line to some three hundred tokens, answers from 1 to 120."""
    choices = random.Random(5)
    return [
        Ask(
            " ".join(choices.choices(QUESTIONS, k=choices.choice((1, 1, 2, 8)))),
            choices.choice((1, 10, 40, 120)),
            choices.choice((0.0, 0.8)),
            seed,
        )
        for seed in range(40)
    ]


async def client(
    llm: AsyncLLM, known: dict[Ask, tuple[int, ...]], tally: Tally, number: int, until_s: float
) -> None:
    choices = random.Random(number)
    while time.monotonic() < until_s:
        ask = choices.choice(list(known))
        priority = choices.choice(list(Priority))
        leave_after = None
        if choices.random() < ABORTED:
            leave_after = choices.randrange(ask.max_tokens + 1)
        started_s = time.monotonic()
        token_ids: list[int] = []
        ends = 0
        chunks = llm.stream(ask.prompt, ask.params, priority=priority)
        async with contextlib.aclosing(chunks):
            if leave_after == 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(chunks), choices.random() * 0.05)
            else:
                async for chunk in chunks:
                    token_ids += chunk.token_ids
                    ends += chunk.is_last
                    if leave_after is not None and len(token_ids) >= leave_after:
                        break
        expected = known[ask]
        if leave_after is None:
            tally.finished[priority] += 1
            tally.latencies_s[priority].append(time.monotonic() - started_s)
            if tuple(token_ids) != expected or ends != 1:
                tally.wrong.append(f"{ask}: {len(token_ids)} tokens, {ends} ends")
        else:
            tally.aborted += 1
            if tuple(token_ids) != expected[: len(token_ids)] or ends > 1:
                tally.wrong.append(f"{ask}: left, {len(token_ids)} tokens, {ends} ends")


async def watch(tally: Tally, until_s: float) -> None:
    while time.monotonic() < until_s:
        tally.resident_bytes.append(resident_bytes())
        await asyncio.sleep(1.0)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def run(arguments: argparse.Namespace) -> tuple[Tally, EngineStats]:
    with LLM(arguments.model, **OPTIONS) as alone:
        known = {ask: alone.generate(ask.prompt, ask.params)[0].token_ids for ask in asks()}
    tally = Tally()
    options = {**OPTIONS, "ngram_speculation": arguments.ngram, "max_queue": 1024}
    async with AsyncLLM(arguments.model, **options) as llm:
        until_s = time.monotonic() + arguments.seconds
        clients = [
            client(llm, known, tally, number, until_s) for number in range(arguments.clients)
        ]
        await asyncio.gather(watch(tally, until_s), *clients)
        while (stats := llm.stats()).num_running or stats.num_waiting:
            await asyncio.sleep(0.05)
        await llm.audit()
        return tally, llm.stats()


def report(tally: Tally, stats: EngineStats, seconds: float) -> bool:
    """Print what happened; whether all was well."""
    num_finished = sum(tally.finished.values())
    print(f"{num_finished} answers read, {tally.aborted} left, {len(tally.wrong)} wrong")
    for line in tally.wrong[:5]:
        print(f"  {line}")
    print(f"{stats.num_generated_tokens / seconds:.0f} tokens/s, "
          f"{stats.num_preemptions} preemptions, "
          f"prefix hit rate {stats.prefix_hit_rate:.0%}, "
          f"guesses {stats.num_accepted_tokens} of {stats.num_draft_tokens}")  # fmt: skip
    for priority, latencies in tally.latencies_s.items():
        latencies.sort()
        median_s, longest_s = latencies[len(latencies) // 2], latencies[-1]
        print(f"  {priority.name:6} {len(latencies):6} answers, "
              f"median {median_s:.2f} s, longest {longest_s:.2f} s")  # fmt: skip
    for name in ("queue_time", "time_to_first_token", "inter_token_latency"):
        times = getattr(stats, name)
        print(f"  {name}: median {1e3 * times.percentile_s(50):.1f} ms, "
              f"99 % {1e3 * times.percentile_s(99):.1f} ms")  # fmt: skip
    # After a quarter of the time all has been allocated that ever will be.
    warm = tally.resident_bytes[len(tally.resident_bytes) // 4 :]
    grown = warm[-1] - warm[0]
    print(
        f"memory {warm[-1] / 2**20:.0f} MiB, {grown / 2**20:+.1f} MiB since a quarter of the time"
    )
    print(f"blocks in use at the end: {stats.num_used_blocks}; failed audits: "
          f"{stats.num_failed_audits}; failed steps: {stats.num_failed_steps}")  # fmt: skip
    unended = stats.num_requests - stats.num_finished
    return not (
        tally.wrong or unended or stats.num_used_blocks or stats.num_failed_audits
        or stats.num_failed or grown > 8 * 2**20
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--ngram", action="store_true")
    arguments = parser.parse_args()
    tally, stats = asyncio.run(run(arguments))
    sys.exit(0 if report(tally, stats, arguments.seconds) else 1)


if __name__ == "__main__":
    main()
