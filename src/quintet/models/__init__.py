"""One file per architecture, and the registry.  May import errors, formats and graph."""

from quintet.models._config import Config
from quintet.models._encoder import EncoderConfig
from quintet.models._gguf_export import GGUFModel, as_gguf
from quintet.models._pooling import Pooling
from quintet.models._registry import (
    AnyConfig,
    Architecture,
    Model,
    architectures,
    config_of_gguf,
    load_model,
)

__all__ = [
    "AnyConfig",
    "Architecture",
    "Config",
    "EncoderConfig",
    "GGUFModel",
    "Model",
    "Pooling",
    "architectures",
    "as_gguf",
    "config_of_gguf",
    "load_model",
]
