"""An engine's counters under the names that this interface has for them."""

from __future__ import annotations

from quintet.engine.latency import Histogram
from quintet.engine.stats import EngineStats


def metrics_of(stats: EngineStats) -> dict[str, float]:
    """
    What there is to know of an engine; times in milliseconds, totals since it was loaded.

    `avg_batch_size` counts the tokens that a step computes.
    """
    num_new_prompt_tokens = stats.num_prompt_tokens - stats.num_cached_tokens
    num_computed = num_new_prompt_tokens + stats.num_generated_tokens
    num_ended_well = stats.num_finished - stats.num_failed - stats.num_aborted - stats.num_timed_out
    return {
        "requests_per_second": stats.requests_per_second,
        "tokens_per_second": stats.tokens_per_second,
        "active_requests": stats.num_running,
        "pending_requests": stats.num_waiting,
        "total_requests": stats.num_requests,
        "completed_requests": num_ended_well,
        "failed_requests": stats.num_failed,
        "cancelled_requests": stats.num_aborted,
        "total_tokens_generated": stats.num_generated_tokens,
        "total_prompt_tokens": stats.num_prompt_tokens,
        **_times("time_to_first_token", stats.time_to_first_token),
        **_times("inter_token_latency", stats.inter_token_latency),
        "avg_queue_wait_time": stats.queue_time.mean_s * 1e3,
        "p99_queue_wait_time": stats.queue_time.percentile_s(99) * 1e3,
        "kv_cache_usage_blocks": stats.num_used_blocks,
        "kv_cache_total_blocks": stats.num_blocks,
        "kv_cache_usage_percent": 100 * stats.kv_usage,
        "prefix_cache_hit_percent": 100 * stats.prefix_hit_rate,
        "avg_batch_size": num_computed / stats.num_steps if stats.num_steps else 0.0,
        "current_batch_size": stats.num_running,
        "timeout_errors": stats.num_timed_out,
    }


def _times(name: str, times: Histogram) -> dict[str, float]:
    percentiles = {f"p{p}_{name}": times.percentile_s(p) * 1e3 for p in (50, 90, 99)}
    return {f"avg_{name}": times.mean_s * 1e3, **percentiles}
