"""The ASGI app: dialects over the server's models, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from quintet.errors import QuintetError
from quintet.server.dialect import Context, Dialect
from quintet.server.dialects import mounted
from quintet.server.disconnect import cancel
from quintet.server.errors import HTTPRefusal
from quintet.server.guard import Guard
from quintet.server.health import HealthMonitor
from quintet.server.models import Models
from quintet.server.replies import ErrorWriter
from quintet.server.settings import Settings


def create_app(models: Models, settings: Settings) -> Starlette:
    """An app that serves these models.

    They stay the caller's: it closes them after the server has stopped.
    """
    health = HealthMonitor(models, settings.stuck_after_s)
    dialects = mounted(Context(models, settings, health))
    errors = ErrorWriter(dialects)

    async def get_health(request: Request) -> Response:
        status = health.observe()
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watches = [asyncio.ensure_future(health.watch()), asyncio.ensure_future(models.watch())]
        try:
            yield
        finally:
            await cancel(*watches)

    app = Starlette(
        routes=[Route("/health", get_health, methods=["GET"]), *_routes(dialects)],
        middleware=[
            Middleware(Guard, settings=settings, errors=errors),
            Middleware(Aliases, paths=_aliases(dialects)),
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
    return app


class Aliases:
    """ASGI middleware: other names of endpoints become those that have routes."""

    def __init__(self, app: ASGIApp, paths: Mapping[str, str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._paths.get(scope.get("path", ""))
        if path is not None:
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)


def _aliases(dialects: list[Dialect]) -> dict[str, str]:
    return {alias: path for dialect in dialects for alias, path in dialect.aliases.items()}


def _routes(dialects: list[Dialect]) -> list[BaseRoute]:
    return [route for dialect in dialects for route in dialect.routes]


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """Nobody is left to read this; the status is for the log."""
    return Response(status_code=499)
