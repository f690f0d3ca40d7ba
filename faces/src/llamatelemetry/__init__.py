"""The interface of llamatelemetry on top of Quintet.

    from llamatelemetry.server import ServerConfig, ServerManager
    from llamatelemetry.api.client import LlamaCppClient

    server = ServerManager()
    server.start_with_config(ServerConfig(model_path="model.gguf"))
    server.wait_until_ready()
    print(LlamaCppClient().chat_completion([{"role": "user", "content": "Hello!"}]))

Importing it loads next to nothing; each name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamatelemetry.api.client import LlamaCppClient
    from llamatelemetry.server import ServerConfig, ServerManager

__version__ = "0.1.0"

__all__ = ["LlamaCppClient", "ServerConfig", "ServerManager", "__version__"]

_LAZY = {
    "LlamaCppClient": "llamatelemetry.api.client",
    "ServerConfig": "llamatelemetry.server",
    "ServerManager": "llamatelemetry.server",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
