"""Quintet: a local LLM engine and server that speaks five interfaces.

    from quintet import LLM, SamplingParams

    with LLM("demo") as llm:
        print(llm.chat([{"role": "user", "content": "Hello!"}]).text)

Importing the package loads next to nothing; each name loads what it needs when
it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from quintet.errors import (
    CapacityError,
    ContextLengthError,
    EngineError,
    ModelFormatError,
    ModelNotFoundError,
    QuintetError,
    RequestError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from quintet.async_llm import AsyncLLM
    from quintet.config import DraftSpeculation, NgramSpeculation
    from quintet.embeddings import EmbeddingOutput
    from quintet.engine.beam_search import BeamSearchParams
    from quintet.engine.output import OutputChunk, RequestOutput
    from quintet.engine.request import Priority
    from quintet.llm import LLM
    from quintet.reranking import RerankOutput
    from quintet.sampling.constraint import Constraint
    from quintet.sampling.params import SamplingParams
    from quintet.sessions import AsyncSessions, Sessions
    from quintet.tokenizer import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncLLM",
    "AsyncSessions",
    "BeamSearchParams",
    "CapacityError",
    "Constraint",
    "ContextLengthError",
    "DraftSpeculation",
    "EmbeddingOutput",
    "EngineError",
    "ModelFormatError",
    "ModelNotFoundError",
    "NgramSpeculation",
    "OutputChunk",
    "Priority",
    "QuintetError",
    "RequestError",
    "RequestOutput",
    "RerankOutput",
    "SamplingParams",
    "Sessions",
    "Tokenizer",
    "UnsupportedModelError",
]

_LAZY = {
    "AsyncLLM": "quintet.async_llm",
    "AsyncSessions": "quintet.sessions",
    "BeamSearchParams": "quintet.engine.beam_search",
    "Constraint": "quintet.sampling.constraint",
    "DraftSpeculation": "quintet.config",
    "EmbeddingOutput": "quintet.embeddings",
    "LLM": "quintet.llm",
    "NgramSpeculation": "quintet.config",
    "OutputChunk": "quintet.engine.output",
    "Priority": "quintet.engine.request",
    "RequestOutput": "quintet.engine.output",
    "RerankOutput": "quintet.reranking",
    "SamplingParams": "quintet.sampling.params",
    "Sessions": "quintet.sessions",
    "Tokenizer": "quintet.tokenizer",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
