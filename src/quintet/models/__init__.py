"""One file per architecture, and the registry.  May import errors, formats and graph."""

from quintet.models._config import Config
from quintet.models._encoder import EncoderConfig
from quintet.models._pooling import Pooling
from quintet.models._registry import AnyConfig, Architecture, Model, architectures, load_model

__all__ = [
    "AnyConfig",
    "Architecture",
    "Config",
    "EncoderConfig",
    "Model",
    "Pooling",
    "architectures",
    "load_model",
]
