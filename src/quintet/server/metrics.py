"""`/metrics` in the text format of Prometheus: engines by model, HTTP by route, the process.

Names are `<prefix>_*`, and beside them those of llama-server as `llamacpp:*`, with the model as a
label, since there may be several.

Sources: prometheus.io, "Exposition formats" and "Metric and label naming"; llama.cpp,
tools/server/README.md, GET /metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from quintet import __version__
from quintet.engine.latency import BOUNDS_S, Histogram
from quintet.engine.stats import EngineStats
from quintet.server.health import HealthMonitor, HealthState
from quintet.server.http_stats import HTTPStats
from quintet.server.models import Models

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Value = Callable[[EngineStats], float]

# Counters get `_total` behind their names.
_COUNTERS: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("requests", "Requests accepted.", lambda s: s.num_requests),
    ("requests_finished", "Requests ended, for whichever reason.", lambda s: s.num_finished),
    ("requests_failed", "Requests ended by an error.", lambda s: s.num_failed),
    ("requests_aborted", "Requests whose client left.", lambda s: s.num_aborted),
    ("requests_queue_timed_out", "Requests that failed because their turn did not come in time.",
     lambda s: s.num_queue_timeouts),
    ("requests_timed_out", "Requests ended by their deadline.", lambda s: s.num_timed_out),
    ("prompt_tokens", "Prompt tokens.", lambda s: s.num_prompt_tokens),
    ("prompt_tokens_cached", "Prompt tokens the prefix cache spared.",
     lambda s: s.num_cached_tokens),
    ("generated_tokens", "Tokens generated.", lambda s: s.num_generated_tokens),
    ("draft_tokens", "Tokens guessed and checked.", lambda s: s.num_draft_tokens),
    ("draft_tokens_accepted", "Guessed tokens that came true.", lambda s: s.num_accepted_tokens),
    ("preemptions", "Sequences sent back for want of KV blocks.", lambda s: s.num_preemptions),
    ("steps", "Engine steps.", lambda s: s.num_steps),
    ("steps_failed", "Engine steps that raised.", lambda s: s.num_failed_steps),
    ("engine_restarts", "Worker processes lost and replaced.", lambda s: s.num_restarts),
    ("audits", "Times the engine checked its books.", lambda s: s.num_audits),
    ("audits_failed", "Audits that found a fault.", lambda s: s.num_failed_audits),
)  # fmt: skip
_GAUGES: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("requests_running", "Sequences in the batch.", lambda s: s.num_running),
    ("requests_waiting", "Sequences in the queue.", lambda s: s.num_waiting),
    ("tokens_per_second", "Tokens generated per second, of late.",
     lambda s: s.tokens_per_second),
    ("requests_per_second", "Requests ended per second, of late.",
     lambda s: s.requests_per_second),
    ("kv_blocks", "KV blocks there are.", lambda s: s.num_blocks),
    ("kv_blocks_used", "KV blocks that sequences own.", lambda s: s.num_used_blocks),
    ("kv_blocks_cached", "Other KV blocks that hold a prefix.", lambda s: s.num_cached_blocks),
    ("kv_usage_ratio", "Share of KV blocks in use, 0 to 1.", lambda s: s.kv_usage),
    ("kv_bytes", "Size of the KV cache.", lambda s: s.num_blocks * s.block_bytes),
    ("step_seconds", "Duration of the latest step.", lambda s: s.last_step_s),
    ("engine_uptime_seconds", "Age of the engine.", lambda s: s.uptime_s),
    ("engine_resident_bytes", "Memory of the engine's process.", lambda s: s.resident_bytes),
)  # fmt: skip
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[EngineStats], Histogram]], ...]] = (
    ("queue_seconds", "From a request's arrival to its first step.", lambda s: s.queue_time),
    ("prefill_seconds", "From its first step to its first token.", lambda s: s.prefill_time),
    ("time_to_first_token_seconds", "From its arrival to its first token.",
     lambda s: s.time_to_first_token),
    ("inter_token_seconds", "Between an answer's tokens.", lambda s: s.inter_token_latency),
    ("request_seconds", "From a request's arrival to its end.", lambda s: s.latency),
)  # fmt: skip
_LLAMACPP_COUNTERS: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("prompt_tokens", "Prompt tokens processed.",
     lambda s: s.num_prompt_tokens - s.num_cached_tokens),
    ("prompt_seconds", "Time spent on prompts.", lambda s: s.prefill_time.sum_s),
    ("tokens_predicted", "Tokens generated.", lambda s: s.num_generated_tokens),
    ("tokens_predicted_seconds", "Time spent on answers.", lambda s: s.inter_token_latency.sum_s),
    ("n_decode", "Engine steps.", lambda s: s.num_steps),
    ("spec_decode_num_draft_tokens", "Tokens guessed.", lambda s: s.num_draft_tokens),
    ("spec_decode_num_accepted_tokens", "Guessed tokens that came true.",
     lambda s: s.num_accepted_tokens),
)  # fmt: skip
_LLAMACPP_GAUGES: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("prompt_tokens_seconds", "Prompt tokens per second.",
     lambda s: _per(s.num_prompt_tokens - s.num_cached_tokens, s.prefill_time.sum_s)),
    ("predicted_tokens_seconds", "Generated tokens per second and answer.",
     lambda s: _per(s.inter_token_latency.count, s.inter_token_latency.sum_s)),
    ("requests_processing", "Sequences in the batch.", lambda s: s.num_running),
    ("requests_deferred", "Sequences in the queue.", lambda s: s.num_waiting),
    ("kv_cache_usage_ratio", "Share of KV blocks in use, 0 to 1.", lambda s: s.kv_usage),
    ("n_busy_slots_per_decode", "Sequences per engine step.",
     lambda s: _per(s.num_scheduled, s.num_steps)),
)  # fmt: skip


class Metrics:
    """All metrics of one server; nothing is shared with another in the same process.

    Args:
        prefix: of the names.
        models: whose engines are read.
        health: of the server.
        stats: of its HTTP side.
    """

    def __init__(
        self, prefix: str, models: Models, health: HealthMonitor, stats: HTTPStats
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_ModelCollector(prefix, models))
        self._registry.register(_ServerCollector(prefix, health, stats))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The body of GET /metrics."""
        return generate_latest(self._registry)


class _ModelCollector(Collector):
    def __init__(self, prefix: str, models: Models) -> None:
        self._prefix = prefix
        self._models = models

    def collect(self) -> Iterable[Metric]:
        read = [(model.name, model.engine.stats()) for model in self._models]
        for prefix, counters, gauges in (
            (f"{self._prefix}_", _COUNTERS, _GAUGES),
            ("llamacpp:", _LLAMACPP_COUNTERS, _LLAMACPP_GAUGES),
        ):
            for name, text, value in counters:
                family: Metric = CounterMetricFamily(prefix + name, text)
                for model, stats in read:
                    family.add_sample(f"{prefix}{name}_total", {"model": model}, value(stats))
                yield family
            for name, text, value in gauges:
                family = GaugeMetricFamily(prefix + name, text)
                for model, stats in read:
                    family.add_sample(prefix + name, {"model": model}, value(stats))
                yield family
        for name, text, histogram in _HISTOGRAMS:
            yield _histograms(
                f"{self._prefix}_{name}", text, "model", ((m, histogram(s)) for m, s in read)
            )


class _ServerCollector(Collector):
    def __init__(self, prefix: str, health: HealthMonitor, stats: HTTPStats) -> None:
        self._prefix = prefix
        self._health = health
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        prefix, stats = self._prefix, self._stats
        requests = CounterMetricFamily(
            f"{prefix}_http_requests", "HTTP requests ended.", labels=("method", "route", "status")
        )
        for (method, route, status), count in stats.requests.items():
            requests.add_metric((method, route, str(status)), count)
        yield requests
        yield _histograms(
            f"{prefix}_http_request_seconds",
            "From a request's headers to the end of its reply.",
            "route",
            ((route, watch.histogram()) for route, watch in stats.durations.items()),
        )
        for name, text, count in (
            ("http_unauthorized", "Requests without an accepted key.", stats.num_refused_keys),
            ("http_rate_limited", "Requests refused by a rate limit.", stats.num_limited),
            (
                "http_ignored_fields",
                "Fields of bodies that are not known here.",
                stats.num_ignored_fields,
            ),
        ):
            yield CounterMetricFamily(f"{prefix}_{name}", text, value=count)
        for name, text, count in (
            ("http_requests_in_flight", "HTTP requests not ended.", stats.num_in_flight),
            ("http_streams", "Replies that are being streamed.", stats.num_streams),
            ("websockets", "WebSockets open.", stats.num_sockets),
        ):
            yield GaugeMetricFamily(f"{prefix}_{name}", text, value=count)
        states = GaugeMetricFamily(f"{prefix}_health", "1 for the state now.", labels=("state",))
        now = self._health.observe()
        for state in HealthState:
            states.add_metric((state.value,), float(state is now))
        yield states
        info = GaugeMetricFamily(f"{prefix}_build_info", "Always 1.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info


def _histograms(
    name: str, text: str, label: str, values: Iterable[tuple[str, Histogram]]
) -> HistogramMetricFamily:
    """Counts per bucket become counts up to each bound, as Prometheus wants them."""
    family = HistogramMetricFamily(name, text, labels=(label,))
    bounds = [f"{bound:.6g}" for bound in BOUNDS_S] + ["+Inf"]
    for value, histogram in values:
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric((value,), buckets, histogram.sum_s)
    return family


def _per(count: float, of: float) -> float:
    return count / of if of else 0.0
