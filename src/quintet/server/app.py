"""The ASGI app: dialects over loaded models, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quintet.errors import QuintetError
from quintet.server.dialects.openai.routes import routes as openai_routes
from quintet.server.disconnect import cancel
from quintet.server.engines import ServedEngine
from quintet.server.errors import HTTPRefusal, error_reply
from quintet.server.guard import Guard
from quintet.server.health import HealthMonitor
from quintet.server.models import Models
from quintet.server.replies import json_reply
from quintet.server.settings import Settings

_log = logging.getLogger(__name__)


def create_app(engines: Mapping[str, ServedEngine], settings: Settings) -> Starlette:
    """An app that serves these models by these names.

    The engines stay the caller's: it closes them after the server has stopped.
    """
    models = Models(engines)
    health = HealthMonitor(models, settings.stuck_after_s)

    async def get_health(request: Request) -> Response:
        status = health.observe()
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.ensure_future(health.watch())
        try:
            yield
        finally:
            await cancel(watch)

    app = Starlette(
        routes=[
            Route("/health", get_health, methods=["GET"]),
            *openai_routes(models, settings),
        ],
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={
            QuintetError: _on_error,
            HTTPRefusal: _on_error,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_disconnect,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    reply = error_reply(error)
    if reply.status >= 500:
        _log.error("request %s: %s", request.state.request_id, error)
    return json_reply(reply)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """The router's own refusals: no such path, or not with this method."""
    if not isinstance(error, HTTPException):  # Starlette calls this for no other
        raise error
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    return json_reply(
        error_reply(HTTPRefusal(error.status_code, error.detail, code=code, headers=error.headers))
    )


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """Nobody is left to read this; the status is for the log."""
    return Response(status_code=499)
