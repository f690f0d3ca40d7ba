"""Where the dialect is mounted: always below /woolly and at /ws, at the root if it is chosen."""

from __future__ import annotations

from starlette.routing import BaseRoute, WebSocketRoute

from quintet.server.dialect import Context, Dialect
from quintet.server.dialects.woolly.current import CurrentModel
from quintet.server.dialects.woolly.errors import error_body
from quintet.server.dialects.woolly.http import Handlers
from quintet.server.dialects.woolly.websocket import Connections


def dialect(context: Context, *, is_at_root: bool = False) -> Dialect:
    """Woolly's interface over these models.

    Args:
        is_at_root: also at /api, where Ollama's is otherwise.
    """
    current = CurrentModel(context.models)
    handlers = Handlers(context, current)
    connections = Connections(context, current)
    routes: list[BaseRoute] = [
        *handlers.routes("/woolly/api"),
        WebSocketRoute("/woolly/ws", connections.serve),
        WebSocketRoute("/ws", connections.serve),
    ]
    prefixes: tuple[str, ...] = ("/woolly/", "/ws")
    operations = handlers.operations("/woolly/api")
    if is_at_root:
        routes += handlers.routes("/api")
        operations |= handlers.operations("/api")
        prefixes += ("/api/",)
    return Dialect("woolly", routes, prefixes, error_body, operations=operations)
