"""The interface of DenseCore on top of Quintet.

    from densecore import DenseCore

    with DenseCore("./model.gguf") as model:
        print(model.generate("Explain AI in one sentence."))

Importing it loads next to nothing; each name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from densecore.config import GenerationConfig
    from densecore.engine import DenseCore
    from densecore.exceptions import (
        DenseCoreError,
        InferenceError,
        InvalidConfigError,
        ModelLoadError,
        TimeoutError,
    )
    from densecore.prune import PruneConfig, prune_model
    from densecore.quantize import QuantConfig, quantize_model

__version__ = "0.1.0"

__all__ = [
    "DenseCore",
    "DenseCoreError",
    "GenerationConfig",
    "InferenceError",
    "InvalidConfigError",
    "ModelLoadError",
    "PruneConfig",
    "QuantConfig",
    "TimeoutError",
    "prune_model",
    "quantize_model",
]

_LAZY = {
    "DenseCore": "densecore.engine",
    "DenseCoreError": "densecore.exceptions",
    "GenerationConfig": "densecore.config",
    "InferenceError": "densecore.exceptions",
    "InvalidConfigError": "densecore.exceptions",
    "ModelLoadError": "densecore.exceptions",
    "PruneConfig": "densecore.prune",
    "QuantConfig": "densecore.quantize",
    "TimeoutError": "densecore.exceptions",
    "prune_model": "densecore.prune",
    "quantize_model": "densecore.quantize",
}
_MODULES = ("exceptions", "integrations", "prune", "quantize")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"densecore.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_MODULES})
