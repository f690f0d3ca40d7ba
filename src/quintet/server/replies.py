"""JSON responses."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from quintet.server.errors import ErrorReply


def json_reply(reply: ErrorReply) -> JSONResponse:
    """An error in OpenAI's shape."""
    body: dict[str, Any] = reply.openai_body()
    return JSONResponse(body, status_code=reply.status, headers=dict(reply.headers))
