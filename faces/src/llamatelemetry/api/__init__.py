"""Clients and tools; each name loads what it needs when it is first used."""

from __future__ import annotations

import importlib

_LAZY = {
    "LlamaCppClient": "client",
    "GGUFParser": "gguf",
    "QUANT_TYPE_INFO": "gguf",
    "estimate_vram": "gguf",
    "get_quantization_info": "gguf",
    "kaggle_t4_recommended_models": "gguf",
    "list_quantization_types": "gguf",
    "recommend_quantization": "gguf",
    "GPUInfo": "multigpu",
    "create_tensor_split_config": "multigpu",
    "detect_gpus": "multigpu",
    "kaggle_t4_dual_config": "multigpu",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
