"""DenseCore for other libraries; each class loads its library when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from densecore.integrations.langchain import DenseCoreChatModel, DenseCoreEmbeddings

__all__ = ["DenseCoreChatModel", "DenseCoreEmbeddings"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("densecore.integrations.langchain"), name)
