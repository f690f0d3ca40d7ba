"""One table from our errors to HTTP: status, OpenAI error type and code.

Texts of `QuintetError` are safe to show, except where they name files of this
machine; those rows replace the text.  Anything that is not a `QuintetError` is
a bug: the client gets a fixed text and the request id, the log gets the rest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quintet.errors import (
    CapacityError,
    ContextLengthError,
    DownloadError,
    EngineError,
    ModelNotFoundError,
    QuintetError,
    RequestError,
)

_log = logging.getLogger(__name__)

INVALID_REQUEST = "invalid_request_error"
DEFAULT_RETRY_AFTER_S = 1.0


class HTTPRefusal(Exception):  # noqa: N818 - a refusal is the protocol's answer, not a failure
    """A request refused by the HTTP layer itself, before any dialect understands it.

    Args:
        status: the HTTP status.
        message: shown to the client.
        code: the machine-readable reason.
        headers: sent along, e.g. `WWW-Authenticate`.
        details: further fields of the error object.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.details = dict(details or {})
        super().__init__(message)


class UnsupportedParameterError(RequestError):
    """A field this server understands but cannot honour, so refuses rather than ignores."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as a dialect sends it: a status, headers, and the OpenAI error object's fields."""

    status: int
    message: str
    type: str = INVALID_REQUEST
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def openai_body(self) -> dict[str, Any]:
        """`{"error": {message, type, param, code, ...}}`; code is a string or null."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                **self.details,
            }
        }


@dataclass(frozen=True, slots=True)
class _Row:
    error: type[QuintetError]
    status: int
    type: str
    code: str | None
    text: str | None = None  # replaces the error's own


_REFUSALS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

# Subclasses before their bases: the first row that fits is taken.
_TABLE = (
    _Row(ContextLengthError, 400, INVALID_REQUEST, "context_length_exceeded"),
    _Row(UnsupportedParameterError, 400, INVALID_REQUEST, "unsupported_parameter"),
    _Row(RequestError, 400, INVALID_REQUEST, None),
    _Row(ModelNotFoundError, 404, INVALID_REQUEST, "model_not_found"),
    _Row(CapacityError, 503, "server_error", "overloaded"),
    _Row(DownloadError, 502, "server_error", "download_failed"),
    _Row(EngineError, 500, "server_error", "engine_error"),
    _Row(QuintetError, 500, "server_error", "model_error", "the model cannot serve requests"),
)


def error_reply(error: BaseException) -> ErrorReply:
    """What a client is told about an error."""
    if isinstance(error, HTTPRefusal):
        kind = "server_error" if error.status >= 500 else _REFUSALS.get(error.status)
        kind = kind or INVALID_REQUEST
        return ErrorReply(
            error.status,
            error.message,
            kind,
            error.code,
            headers=error.headers,
            details=error.details,
        )
    for row in _TABLE:
        if isinstance(error, row.error):
            return ErrorReply(
                row.status,
                row.text or str(error),
                row.type,
                row.code,
                getattr(error, "parameter", None),
                _headers(error),
                _details(error),
            )
    return ErrorReply(500, "internal error", "server_error", "internal_error")


def stream_error_reply(error: Exception) -> ErrorReply:
    """What a client is told after the first byte; what is our fault goes to the log."""
    reply = error_reply(error)
    if reply.status >= 500:
        _log.error("a stream ended early", exc_info=error)
    return reply


def _headers(error: QuintetError) -> Mapping[str, str]:
    if isinstance(error, CapacityError):
        # Clients retry by this header (the openai package up to 120 s), in whole seconds.
        return {"Retry-After": str(math.ceil(error.retry_after_s or DEFAULT_RETRY_AFTER_S))}
    return {}


def _details(error: QuintetError) -> Mapping[str, int]:
    if isinstance(error, ContextLengthError):
        # llama-server's names, which agents parse to shorten their history.
        return {"n_prompt_tokens": error.num_tokens, "n_ctx": error.max_tokens}
    return {}
