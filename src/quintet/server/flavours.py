"""How the server presents itself: what systems that share routes differ in.

A flavour is a setting, not a second server: its port, its owner's name in lists of models, the
prefix of its metrics, the body of /health, and the shape of errors.

Sources: nano-qwen3-serving, "HTTP API"; DenseCore, "REST API"; Woolly, "HTTP API"; llama.cpp,
tools/server/README.md, GET /health.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from quintet import __version__
from quintet.engine.stats import EngineStats
from quintet.server.errors import ErrorReply
from quintet.server.health import HealthState
from quintet.server.models import Models

_STARTED_S = time.monotonic()
_FIELD_REQUIRED = "Field required"  # pydantic's text for what is missing


@dataclass(frozen=True, slots=True)
class Flavour:
    """A system's ways.

    Args:
        port: it listens on, unless told otherwise.
        owner: `owned_by` of models.
        metric_prefix: of the names in /metrics.
        health_body: of /health, from the state and the models.
        error_body: of errors on OpenAI's paths and on those of nobody.
        routes: further ones.
    """

    port: int
    owner: str
    metric_prefix: str
    health_body: Callable[[HealthState, Models], dict[str, Any]]
    error_body: Callable[[ErrorReply], Any] = ErrorReply.openai_body
    routes: Callable[[Models], Sequence[BaseRoute]] = lambda models: ()


def _quintet_health(state: HealthState, models: Models) -> dict[str, Any]:
    return {"status": state.value}


def _nano_health(state: HealthState, models: Models) -> dict[str, Any]:
    return {
        "status": _healthy(state),
        "uptime": time.monotonic() - _STARTED_S,
        "model_info": {
            model.name: {"max_seq_length": model.engine.limits.max_model_len} for model in models
        },
        "memory_usage": {model.name: model.num_bytes for model in models},
    }


def _densecore_health(state: HealthState, models: Models) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"status": _healthy(state), "timestamp": now.replace("+00:00", "Z")}


def _woolly_health(state: HealthState, models: Models) -> dict[str, Any]:
    return {
        "status": state.value,
        "version": __version__,
        "uptime": int(time.monotonic() - _STARTED_S),
    }


def _llamacpp_health(state: HealthState, models: Models) -> dict[str, Any]:
    if state is HealthState.OK:
        return {"status": "ok"}
    message = "Loading model" if state is HealthState.STARTING else state.value
    return {"error": {"code": 503, "message": message, "type": "unavailable_error"}}


def _healthy(state: HealthState) -> str:
    return "healthy" if state is HealthState.OK else state.value


def _nano_error(reply: ErrorReply) -> dict[str, Any]:
    """OpenAI's shape, with nano's code for what is missing."""
    body = reply.openai_body()
    if reply.message.endswith(_FIELD_REQUIRED) and reply.param:
        body["error"]["message"] = f"Missing required parameter: {reply.param}"
        body["error"]["code"] = "missing_parameter"
    return body


def _nano_routes(models: Models) -> Sequence[BaseRoute]:
    async def stats(request: Request) -> Response:
        return JSONResponse(nano_stats([model.engine.stats() for model in models]))

    return [Route("/stats", stats, methods=["GET"])]


def nano_stats(all_stats: Sequence[EngineStats]) -> dict[str, Any]:
    """The body of /stats: all models together; seconds are the mean life of a request."""
    num_ended = sum(stats.latency.count for stats in all_stats)
    total_s = sum(stats.latency.sum_s for stats in all_stats)
    return {
        "requests_served": sum(stats.num_finished for stats in all_stats),
        "total_tokens_generated": sum(stats.num_generated_tokens for stats in all_stats),
        "average_response_time": total_s / num_ended if num_ended else 0.0,
        "queue_length": sum(stats.num_waiting for stats in all_stats),
        "active_requests": sum(stats.num_running for stats in all_stats),
    }


FLAVOURS: Final[dict[str, Flavour]] = {
    "quintet": Flavour(11434, "quintet", "quintet", _quintet_health),
    "nano": Flavour(8000, "nano-qwen3-serving", "nano", _nano_health, _nano_error, _nano_routes),
    "densecore": Flavour(8080, "densecore", "densecore", _densecore_health),
    "oprel": Flavour(11434, "library", "oprel", _quintet_health),
    "woolly": Flavour(11434, "woolly", "woolly", _woolly_health),
    "llamacpp": Flavour(8080, "llamacpp", "quintet", _llamacpp_health),
}
