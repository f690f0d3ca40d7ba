"""The interface of nano-qwen3-serving on top of Quintet.

    from nano_qwen3_serving import LLM, SamplingParams

    with LLM(model_name="Qwen/Qwen3-0.6B") as llm:
        print(llm.generate_single("What is AI?")["generated_text"])

Importing it loads next to nothing; each name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nano_qwen3_serving.async_llm import AsyncLLM
    from nano_qwen3_serving.core.scheduler import RequestPriority
    from nano_qwen3_serving.exceptions import (
        GenerationError,
        InvalidParametersError,
        ModelLoadError,
        QueueFullError,
    )
    from nano_qwen3_serving.llm import LLM
    from nano_qwen3_serving.sampling_params import SamplingParams

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncLLM",
    "GenerationError",
    "InvalidParametersError",
    "ModelLoadError",
    "QueueFullError",
    "RequestPriority",
    "SamplingParams",
]

_LAZY = {
    "AsyncLLM": "nano_qwen3_serving.async_llm",
    "GenerationError": "nano_qwen3_serving.exceptions",
    "InvalidParametersError": "nano_qwen3_serving.exceptions",
    "LLM": "nano_qwen3_serving.llm",
    "ModelLoadError": "nano_qwen3_serving.exceptions",
    "QueueFullError": "nano_qwen3_serving.exceptions",
    "RequestPriority": "nano_qwen3_serving.core.scheduler",
    "SamplingParams": "nano_qwen3_serving.sampling_params",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
