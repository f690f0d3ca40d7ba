"""Errors as JSON responses, in the shape of the dialect that was spoken to."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quintet.server.dialect import Dialect, error_body
from quintet.server.errors import HTTPRefusal, error_reply

_log = logging.getLogger(__name__)
_ROUTER_CODES = {404: "not_found", 405: "method_not_allowed"}


class ErrorWriter:
    """Turns errors into responses.

    Args:
        dialects: those the app speaks; a path tells which one a client expects.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._dialects = dialects

    def response(self, path: str, error: BaseException) -> JSONResponse:
        """What a client that asked for `path` is told."""
        reply = error_reply(error)
        body = error_body(self._dialects, path, reply)
        return JSONResponse(body, status_code=reply.status, headers=dict(reply.headers))

    async def on_error(self, request: Request, error: Exception) -> Response:
        """A handler for Starlette: errors raised on purpose."""
        response = self.response(request.url.path, error)
        if response.status_code >= 500 and not isinstance(error, HTTPRefusal):
            _log.error("request %s: %s", request.state.request_id, error)
        return response

    async def on_http_exception(self, request: Request, error: Exception) -> Response:
        """A handler for Starlette: the router's own refusals, no such path or method."""
        if not isinstance(error, HTTPException):  # Starlette calls this for no other
            raise error
        code = _ROUTER_CODES.get(error.status_code)
        refusal = HTTPRefusal(error.status_code, error.detail, code=code, headers=error.headers)
        return self.response(request.url.path, refusal)
