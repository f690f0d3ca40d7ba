"""What watches the server: `/health` and its parts, and `/metrics`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from quintet.server.flavours import Flavour
from quintet.server.health import HealthMonitor, HealthState
from quintet.server.metrics import CONTENT_TYPE, Metrics
from quintet.server.models import Models


def probe_routes(
    health: HealthMonitor, metrics: Metrics, models: Models, flavour: Flavour
) -> list[BaseRoute]:
    """Each part of /health is 200 or 503, and says which state it saw.

    `/health`, in the flavour's form, and `/health/ready` want it to serve; `/health/live` wants it
    not to need a new
    start; `/health/startup` wants its models loaded.

    Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes".
    """

    def reply(state: HealthState, is_good: bool) -> Response:
        return JSONResponse({"status": state.value}, 200 if is_good else 503)

    async def whole(request: Request) -> Response:
        state = health.observe()
        status = 200 if state is HealthState.OK else 503
        return JSONResponse(flavour.health_body(state, models), status)

    async def ready(request: Request) -> Response:
        state = health.observe()
        return reply(state, state is HealthState.OK)

    async def live(request: Request) -> Response:
        state = health.observe()
        return reply(state, state.is_alive)

    async def startup(request: Request) -> Response:
        state = health.observe()
        return reply(state, state is not HealthState.STARTING)

    async def read_metrics(request: Request) -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    return [
        Route("/health", whole, methods=["GET"]),
        Route("/health/ready", ready, methods=["GET"]),
        Route("/health/live", live, methods=["GET"]),
        Route("/health/startup", startup, methods=["GET"]),
        Route("/metrics", read_metrics, methods=["GET"]),
        *flavour.routes(models),
    ]
