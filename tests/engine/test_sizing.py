"""The size of the KV cache: from memory and wishes to blocks, or a refusal with numbers."""

import logging

import pytest

from quintet.backends.base import BLOCK_SIZE
from quintet.config import EngineConfig
from quintet.engine import sizing
from quintet.engine.sizing import CachePlan, available_memory_bytes, plan_cache, plan_encoder
from quintet.errors import CapacityError, RequestError

MIB = 2**20


def plan(config: EngineConfig | None = None, **facts: int) -> CachePlan:
    """A model of 1,000 tokens of context, 1 MiB per block, on a machine with 1,000 MiB."""
    defaults = {"context_length": 1000, "block_bytes": MIB, "weight_bytes": 0}
    return plan_cache(
        config or EngineConfig(max_num_seqs=8),
        **{**defaults, "available_bytes": 1000 * MIB, **facts},
    )


def test_sizing_takes_a_quarter_of_the_memory_left_beside_the_weights() -> None:
    """By default the cache gets a quarter of what the weights leave."""
    assert plan() == CachePlan(250, 1000)
    assert plan(weight_bytes=600 * MIB) == CachePlan(100, 1000)


def test_sizing_takes_no_more_than_can_be_used() -> None:
    """All sequences at full length is as much as there is use for."""
    assert plan(EngineConfig(max_num_seqs=2)) == CachePlan(126, 1000)
    assert plan(EngineConfig(max_num_seqs=2, max_model_len=100)) == CachePlan(14, 100)


def test_sizing_obeys_kv_cache_bytes() -> None:
    """An explicit size is taken as it is, rounded down to blocks."""
    assert plan(EngineConfig(kv_cache_bytes=70 * MIB - 1)) == CachePlan(69, 1000)


def test_sizing_says_when_it_limits_the_context(caplog: pytest.LogCaptureFixture) -> None:
    """A context shorter than the model's is never silent."""
    with caplog.at_level(logging.WARNING):
        assert plan(EngineConfig(kv_cache_bytes=10 * MIB)) == CachePlan(10, 160)
    assert "limited to 160 of the model's 1000 tokens" in caplog.text


def test_sizing_refuses_a_context_that_was_asked_for_and_does_not_fit() -> None:
    """An explicit max_model_len is kept or refused with the bytes it needs."""
    with pytest.raises(CapacityError, match=f"1000 tokens needs a KV cache of {63 * MIB} bytes"):
        plan(EngineConfig(kv_cache_bytes=62 * MIB, max_model_len=1000))
    assert plan(EngineConfig(kv_cache_bytes=63 * MIB, max_model_len=1000)).max_model_len == 1000


def test_sizing_refuses_a_machine_without_memory() -> None:
    """Weights that take everything leave no cache."""
    with pytest.raises(CapacityError, match="0 are to be had"):
        plan(weight_bytes=2000 * MIB)


def test_sizing_refuses_more_context_than_the_model_was_trained_for() -> None:
    """A longer context is the caller's mistake."""
    with pytest.raises(RequestError, match="at most 1000") as caught:
        plan(EngineConfig(max_model_len=1001))
    assert caught.value.parameter == "max_model_len"


def test_sizing_reads_the_memory_of_this_machine() -> None:
    """There is some memory, and less than there is in all machines together."""
    assert 2**20 < available_memory_bytes() < 2**50


def test_sizing_respects_a_control_group(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container its limit counts; what the page cache holds can be taken back."""
    monkeypatch.setattr(sizing, "_CGROUP", tmp_path)
    unlimited = available_memory_bytes()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 200000\n")
    assert available_memory_bytes() == pytest.approx(unlimited, rel=0.5)
    (tmp_path / "memory.max").write_text("1000000\n")
    assert available_memory_bytes() == 500000


def test_sizing_guesses_where_the_system_does_not_say(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc half of the built-in memory is assumed."""
    monkeypatch.setattr(sizing, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(sizing, "_CGROUP", tmp_path)
    assert available_memory_bytes() > 2**20


def test_encoder_gets_blocks_for_a_pass_and_for_its_longest_text():
    """Twice the pass, so that short texts with blocks of their own fill it."""
    plan = plan_encoder(EngineConfig(), 256)
    assert (plan.max_model_len, plan.num_blocks * BLOCK_SIZE) == (256, 1024)
    plan = plan_encoder(EngineConfig(max_model_len=4000), 8192)
    assert (plan.max_model_len, plan.num_blocks * BLOCK_SIZE) == (4000, 8000)
    with pytest.raises(RequestError, match="max_model_len"):
        plan_encoder(EngineConfig(max_model_len=8193), 8192)


def test_sizing_keeps_a_limit() -> None:
    """With max_memory the cache gets what weights and buffers leave of it."""
    facts = {"max_memory": 100 * MIB, "weight_bytes": 60 * MIB, "buffer_bytes": 10 * MIB}
    assert plan(**facts) == CachePlan(30, 30 * 16)
    assert plan(EngineConfig(max_num_seqs=1, max_model_len=160), **facts) == CachePlan(10, 160)
    assert plan(EngineConfig(kv_cache_bytes=30 * MIB), **facts).num_blocks == 30
    # The machine may have less than the limit.
    assert plan(**facts, available_bytes=80 * MIB).num_blocks == 20


def test_sizing_refuses_what_passes_the_limit_with_numbers() -> None:
    """Weights, a context or a cache that max_memory cannot hold are refused first."""
    facts = {"max_memory": 100 * MIB, "weight_bytes": 60 * MIB, "buffer_bytes": 10 * MIB}
    with pytest.raises(CapacityError, match=f"at least {101 * MIB} bytes .*{31 * MIB} of KV"):
        plan(EngineConfig(kv_cache_bytes=31 * MIB), **facts)
    with pytest.raises(CapacityError, match=f"{32 * MIB} of KV cache.*found {100 * MIB}"):
        plan(EngineConfig(max_model_len=500), **facts)
    with pytest.raises(CapacityError, match=f"{120 * MIB} of weights"):
        plan(max_memory=100 * MIB, weight_bytes=120 * MIB)
