"""One package per wire protocol: wire to engine request, engine output to wire."""

from __future__ import annotations

from quintet.server.dialect import Context, Dialect
from quintet.server.dialects.anthropic.routes import dialect as anthropic
from quintet.server.dialects.llamacpp.routes import dialect as llamacpp
from quintet.server.dialects.openai.routes import dialect as openai


def mounted(context: Context) -> list[Dialect]:
    """The dialects an app speaks, in the order their routes are tried."""
    return [openai(context), anthropic(context), llamacpp(context)]
