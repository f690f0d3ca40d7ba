"""Benchmarks: what is run, and how it is reported."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from quintet import LLM
from quintet.cli.app import app
from quintet.tools.bench import measure, num_rounds_in_all


def test_measure_runs_what_it_says():
    """Each phase and batch size is measured, and no prompt is ever found in the cache."""
    rounds = []
    with LLM("demo") as llm:
        before = llm.stats()
        found = measure(
            llm,
            batch_sizes=[1, 3],
            num_prefill_tokens=40,
            num_decode_tokens=5,
            num_rounds=2,
            on_round=lambda: rounds.append(1),
        )
        after = llm.stats()
    assert [(item.phase, item.batch_size, item.num_tokens) for item in found] == [
        ("prefill", 1, 40),
        ("decode", 1, 5),
        ("prefill", 3, 40),
        ("decode", 3, 5),
    ]
    assert len(rounds) == num_rounds_in_all([1, 3], 2) == 12
    assert after.num_prompt_tokens - before.num_prompt_tokens == 3 * (1 + 3) * (40 + 1)
    assert after.num_generated_tokens - before.num_generated_tokens == 3 * (1 + 3) * (1 + 5)
    assert after.num_cached_tokens == before.num_cached_tokens
    for item in found:
        assert len(item.rounds) == 2
        assert min(item.rounds) <= item.tokens_per_s <= max(item.rounds)


def test_bench_reports_a_table_and_json():
    """The command prints the same measurements either way, beside the machine."""
    arguments = ["bench", "demo", "--prefill", "32", "--decode", "4", "--rounds", "1"]
    table = CliRunner().invoke(app, arguments)
    assert table.exit_code == 0
    assert "prefill" in table.output
    assert "decode" in table.output
    result = CliRunner().invoke(app, [*arguments, "--batch", "1", "--batch", "2", "--json"])
    report = json.loads(result.stdout)
    assert report["model"] == "demo"
    assert report["machine"]["num_threads"] >= 1
    assert [item["batch_size"] for item in report["measurements"]] == [1, 1, 2, 2]
