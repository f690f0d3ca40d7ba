"""The log: one line per event, as text or as JSON, whatever clients send.

Neither prompts nor keys get here.  Texts that a client may have had a hand in, such as an error's,
cannot begin a line of their own.

Imports nothing of ours.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final, Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MAX_TEXT: Final = 8192
_NO_NEWS: Final = ("ASGI callable returned without completing handshake", "Invalid HTTP request")


RequestId: TypeAlias = Callable[[], "str | None"]


def configure(format: LogFormat, level: str, request_id: RequestId = lambda: None) -> None:
    """Send the log of this process to stderr.

    Args:
        level: "debug", "info", "warning" or "error".
        request_id: of the request that the code that logs works for, if any.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = JSONFormatter if format == "json" else TextFormatter
    handler.setFormatter(formatter(request_id))
    handler.addFilter(_is_news)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JSONFormatter(logging.Formatter):
    """A JSON object per line: timestamp, level, logger, message, request_id, further fields.

    Args:
        request_id: see `configure`.
    """

    def __init__(self, request_id: RequestId = lambda: None) -> None:
        super().__init__()
        self._request_id = request_id

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_TEXT],
        }
        if (request_id := self._request_id()) is not None:
            line["request_id"] = request_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-_MAX_TEXT:]
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`TIMESTAMP LEVEL LOGGER: message key=value...`; a traceback follows, indented.

    Args:
        request_id: see `configure`.
    """

    def __init__(self, request_id: RequestId = lambda: None) -> None:
        super().__init__()
        self._request_id = request_id

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields = {"request_id": self._request_id(), **getattr(record, "fields", {})}
        details = "".join(f" {k}={v}" for k, v in fields.items() if v not in (None, ""))
        text = record.getMessage()[:_MAX_TEXT] + details
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {_escaped(text)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)[-_MAX_TEXT:]
            line += "".join(f"\n    {_escaped(part)}" for part in trace.splitlines())
        return line


def _is_news(record: logging.LogRecord) -> bool:
    """Not what uvicorn says of every refused handshake and garbled request: clients could fill a
    disk with it, and ours are in the access log."""
    return record.name != "uvicorn.error" or not record.getMessage().startswith(_NO_NEWS)


def _timestamp(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, timezone.utc)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
