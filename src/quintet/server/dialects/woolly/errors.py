"""Woolly's error codes and the shape they come in.

Source: Woolly, "API Reference", "Error Handling".
"""

from __future__ import annotations

from typing import Any

from quintet.errors import CapacityError, ModelNotFoundError
from quintet.server.errors import ErrorReply, HTTPRefusal
from quintet.server.models import Models

_CODES = {
    "model_not_found": "MODEL_NOT_FOUND",
    "model_not_loaded": "MODEL_NOT_LOADED",
    "out_of_memory": "OUT_OF_MEMORY",
    "engine_error": "GENERATION_FAILED",
    "model_error": "MODEL_LOAD_FAILED",
}
_STATUSES = {401: "UNAUTHORIZED", 429: "RATE_LIMITED"}


def error_body(reply: ErrorReply) -> dict[str, Any]:
    """`{"error": {message, code, details}}`."""
    return {
        "error": {"message": reply.message, "code": code(reply), "details": dict(reply.details)}
    }


def code(reply: ErrorReply) -> str:
    """The code of the reference that fits best."""
    if reply.status in _STATUSES:
        return _STATUSES[reply.status]
    if reply.code in _CODES:
        return _CODES[reply.code]
    return "INTERNAL_ERROR" if reply.status >= 500 else "INVALID_REQUEST"


def not_found(name: str, models: Models) -> HTTPRefusal:
    """The refusal of an unknown name, with those there are."""
    available = [manifest.name for manifest in models.catalog.list()]
    return HTTPRefusal(
        404,
        f"Model not found: {name}",
        code="model_not_found",
        details={"model": name, "available_models": available},
    )


def translated(error: Exception, name: str, models: Models) -> Exception:
    """The error with what Woolly says about models and memory."""
    if isinstance(error, ModelNotFoundError):
        return not_found(name, models)
    if isinstance(error, CapacityError) and "memory" in error.resource:
        return HTTPRefusal(507, str(error), code="out_of_memory")
    return error


def not_loaded() -> HTTPRefusal:
    """The refusal of what needs a model while there is none."""
    return HTTPRefusal(400, "No model is currently loaded", code="model_not_loaded")
