"""Woolly's library, in Python, on Quintet: the names of its Rust API with the same meaning.

    engine = Engine(EngineConfig.builder().max_sequence_length(2048).build())
    engine.load_model("models/llama-7b-q4.gguf")
    session = engine.create_session()
    text = await session.generate("Once upon a time", 100, 0.7, 0.9)

Importing this loads next to nothing; each name loads what it needs when it is first used.

Source: Woolly, "API Reference".
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from woolly.config import CacheConfig, EngineConfig, EngineConfigBuilder
    from woolly.engine import Engine, EngineStats
    from woolly.errors import (
        Error,
        GenerationFailed,
        GpuError,
        InternalError,
        InvalidRequest,
        ModelLoadFailed,
        ModelNotFound,
        ModelNotLoaded,
        OutOfMemory,
        RateLimited,
        TokenizerError,
        Unauthorized,
        WoollyError,
    )
    from woolly.memory import MappedFile, MemoryBackend, MmapConfig
    from woolly.model import Architecture, Model, ModelMetadata
    from woolly.mpsc import Receiver, Sender, channel
    from woolly.quantization import QuantizationType, quantize_model
    from woolly.sampler import DefaultSampler, MirostatSampler, Sampler
    from woolly.sentencepiece_tokenizer import SentencePieceTokenizer
    from woolly.session import Session, SessionStats
    from woolly.tokenizer import BPETokenizer, SpecialTokens, Tokenizer
    from woolly.vocabulary import TokenId, Vocabulary, load_merges

__version__ = "0.1.0"

_NAMES = {
    "woolly.mpsc": ("Receiver", "Sender", "channel"),
    "woolly.config": ("CacheConfig", "EngineConfig", "EngineConfigBuilder"),
    "woolly.engine": ("Engine", "EngineStats"),
    "woolly.errors": (
        *("Error", "GenerationFailed", "GpuError", "InternalError", "InvalidRequest"),
        *("ModelLoadFailed", "ModelNotFound", "ModelNotLoaded", "OutOfMemory", "RateLimited"),
        *("TokenizerError", "Unauthorized", "WoollyError"),
    ),
    "woolly.memory": ("MappedFile", "MemoryBackend", "MmapConfig"),
    "woolly.model": ("Architecture", "Model", "ModelMetadata"),
    "woolly.quantization": ("QuantizationType", "quantize_model"),
    "woolly.sampler": ("DefaultSampler", "MirostatSampler", "Sampler"),
    "woolly.session": ("Session", "SessionStats"),
    "woolly.sentencepiece_tokenizer": ("SentencePieceTokenizer",),
    "woolly.tokenizer": ("BPETokenizer", "SpecialTokens", "Tokenizer"),
    "woolly.vocabulary": ("TokenId", "Vocabulary", "load_merges"),
}
_LAZY = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Architecture",
    "BPETokenizer",
    "CacheConfig",
    "DefaultSampler",
    "Engine",
    "EngineConfig",
    "EngineConfigBuilder",
    "EngineStats",
    "Error",
    "GenerationFailed",
    "GpuError",
    "InternalError",
    "InvalidRequest",
    "MappedFile",
    "MemoryBackend",
    "MirostatSampler",
    "MmapConfig",
    "Model",
    "ModelLoadFailed",
    "ModelMetadata",
    "ModelNotFound",
    "ModelNotLoaded",
    "OutOfMemory",
    "QuantizationType",
    "RateLimited",
    "Receiver",
    "Sampler",
    "Sender",
    "SentencePieceTokenizer",
    "Session",
    "SessionStats",
    "SpecialTokens",
    "TokenId",
    "Tokenizer",
    "TokenizerError",
    "Unauthorized",
    "Vocabulary",
    "WoollyError",
    "channel",
    "load_merges",
    "quantize_model",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
