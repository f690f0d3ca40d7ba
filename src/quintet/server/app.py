"""The ASGI app: dialects over the server's models, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from quintet.errors import QuintetError
from quintet.server.dialect import Context, Dialect
from quintet.server.dialects import mounted
from quintet.server.disconnect import cancel
from quintet.server.errors import HTTPRefusal
from quintet.server.flavours import FLAVOURS
from quintet.server.guard import OPEN_PATHS, Guard
from quintet.server.health import HealthMonitor
from quintet.server.http_stats import HTTPStats
from quintet.server.metrics import Metrics
from quintet.server.models import Models
from quintet.server.observer import Observer
from quintet.server.openapi import PATH as OPENAPI_PATH
from quintet.server.openapi import document
from quintet.server.probes import probe_routes
from quintet.server.replies import ErrorWriter
from quintet.server.settings import Settings
from quintet.server.streaming import json_bytes


def create_app(models: Models, settings: Settings) -> Starlette:
    """An app that serves these models.

    They stay the caller's: it closes them after the server has stopped.  `app.state` has the
    `health` and the `http_stats` of the server.
    """
    health = HealthMonitor(models, settings.stuck_after_s)
    flavour = FLAVOURS[settings.dialect]
    dialects = mounted(Context(models, settings, health, flavour))
    errors = ErrorWriter(dialects)
    stats = HTTPStats()
    metrics = Metrics(settings.metric_prefix or flavour.metric_prefix, models, health, stats)

    probes = probe_routes(health, metrics, models, flavour)

    @functools.lru_cache(maxsize=1)
    def described() -> bytes:
        has_keys = bool(settings.keys)
        return json_bytes(document(dialects, probes, has_keys=has_keys, open_paths=OPEN_PATHS))

    async def openapi(request: Request) -> Response:
        return Response(await asyncio.to_thread(described), media_type="application/json")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watches = [asyncio.ensure_future(health.watch()), asyncio.ensure_future(models.watch())]
        try:
            yield
        finally:
            await cancel(*watches)

    routes, aliases = (
        [*_routes(dialects), *probes, Route(OPENAPI_PATH, openapi, methods=["GET"])],
        _aliases(dialects),
    )
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Observer, stats=stats, routes=routes, aliases=aliases),
            Middleware(Guard, settings=settings, errors=errors, health=health),
            Middleware(Aliases, paths=aliases),
        ],
        exception_handlers={
            QuintetError: errors.on_error,
            HTTPRefusal: errors.on_error,
            HTTPException: errors.on_http_exception,
            ClientDisconnect: _on_disconnect,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.health, app.state.http_stats = health, stats
    return app


class Aliases:
    """ASGI middleware: other names of endpoints become those that have routes."""

    def __init__(self, app: ASGIApp, paths: Mapping[str, str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._paths.get(scope.get("path", ""))
        if path is not None:
            # In place: the router notes in this scope which route it took, for the metrics.
            scope.update(path=path, raw_path=path.encode())
        await self._app(scope, receive, send)


def _aliases(dialects: list[Dialect]) -> dict[str, str]:
    return {alias: path for dialect in dialects for alias, path in dialect.aliases.items()}


def _routes(dialects: list[Dialect]) -> list[BaseRoute]:
    return [route for dialect in dialects for route in dialect.routes]


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """Nobody is left to read this; the status is for the log."""
    return Response(status_code=499)
