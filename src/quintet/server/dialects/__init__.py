"""One package per wire protocol: wire to engine request, engine output to wire."""

from __future__ import annotations

from quintet.server.dialect import Context, Dialect
from quintet.server.dialects.anthropic.routes import dialect as anthropic
from quintet.server.dialects.llamacpp.routes import dialect as llamacpp
from quintet.server.dialects.ollama.routes import dialect as ollama
from quintet.server.dialects.openai.routes import dialect as openai
from quintet.server.dialects.woolly.routes import dialect as woolly


def mounted(context: Context) -> list[Dialect]:
    """The dialects an app speaks, in the order their routes are tried."""
    is_woolly = context.settings.dialect == "woolly"
    root = woolly(context, is_at_root=is_woolly)
    dialects = [openai(context), anthropic(context), llamacpp(context), root]
    return dialects if is_woolly else [*dialects, ollama(context)]
