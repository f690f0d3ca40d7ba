"""Oprel's Python interface on Quintet.

    from oprel import Model

    print(Model("demo").generate("What is the capital of France?"))

Importing this loads next to nothing; each name loads what it needs when it is first used.

Source: Oprel SDK, "API Reference".
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oprel.client import AsyncClient, Client, HTTPClient
    from oprel.core.config import Config
    from oprel.core.exceptions import (
        BackendError,
        DownloadError,
        MemoryError,
        ModelNotFoundError,
        OprelError,
        ResponseError,
        ValidationError,
    )
    from oprel.core.model import Model
    from oprel.functions import (
        chat,
        copy,
        create,
        delete,
        embed,
        embeddings,
        generate,
        list,
        ps,
        pull,
        show,
    )
    from oprel.responses import (
        ChatResponse,
        EmbeddingsResponse,
        EmbedResponse,
        GenerateResponse,
        ListResponse,
        Message,
        ModelInfo,
        ProcessResponse,
        ProgressResponse,
        ShowResponse,
    )

__version__ = "0.1.0"

_CLIENT, _CONFIG = "oprel.client", "oprel.core.config"
_EXCEPTIONS, _FUNCTIONS = "oprel.core.exceptions", "oprel.functions"
_RESPONSES = "oprel.responses"
_LAZY = {
    "AsyncClient": _CLIENT,
    "BackendError": _EXCEPTIONS,
    "ChatResponse": _RESPONSES,
    "Client": _CLIENT,
    "Config": _CONFIG,
    "DownloadError": _EXCEPTIONS,
    "EmbedResponse": _RESPONSES,
    "EmbeddingsResponse": _RESPONSES,
    "GenerateResponse": _RESPONSES,
    "HTTPClient": _CLIENT,
    "ListResponse": _RESPONSES,
    "MemoryError": _EXCEPTIONS,
    "Message": _RESPONSES,
    "Model": "oprel.core.model",
    "ModelInfo": _RESPONSES,
    "ModelNotFoundError": _EXCEPTIONS,
    "OprelError": _EXCEPTIONS,
    "ProcessResponse": _RESPONSES,
    "ProgressResponse": _RESPONSES,
    "ResponseError": _EXCEPTIONS,
    "ShowResponse": _RESPONSES,
    "ValidationError": _EXCEPTIONS,
    "chat": _FUNCTIONS,
    "copy": _FUNCTIONS,
    "create": _FUNCTIONS,
    "delete": _FUNCTIONS,
    "embed": _FUNCTIONS,
    "embeddings": _FUNCTIONS,
    "generate": _FUNCTIONS,
    "list": _FUNCTIONS,
    "ps": _FUNCTIONS,
    "pull": _FUNCTIONS,
    "show": _FUNCTIONS,
}

__all__ = [  # noqa: RUF022 - classes, answers, functions, errors
    "Model",
    "Config",
    "Client",
    "AsyncClient",
    "HTTPClient",
    "ChatResponse",
    "EmbedResponse",
    "EmbeddingsResponse",
    "GenerateResponse",
    "ListResponse",
    "Message",
    "ModelInfo",
    "ProcessResponse",
    "ProgressResponse",
    "ShowResponse",
    "chat",
    "copy",
    "create",
    "delete",
    "embed",
    "embeddings",
    "generate",
    "list",
    "ps",
    "pull",
    "show",
    "OprelError",
    "BackendError",
    "DownloadError",
    "MemoryError",
    "ModelNotFoundError",
    "ResponseError",
    "ValidationError",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> object:
    return sorted({*globals(), *_LAZY})
