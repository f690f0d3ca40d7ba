"""The errors of this interface.

LLCudaError
├── ServerError          a server that does not start, or fails
├── ClientError          a request that is wrong, or reaches nobody
├── ModelError           no such model, or it cannot be read
└── ConfigurationError   options that make no sense together or here
"""

from __future__ import annotations


class LLCudaError(Exception):
    """Base of all errors of this package."""


class ServerError(LLCudaError):
    """A server does not start, or answered that it failed."""


class ClientError(LLCudaError):
    """A request was refused, reached nobody, or got an answer of another kind."""


class ModelError(LLCudaError):
    """A model is not there or cannot be read."""


class ConfigurationError(LLCudaError):
    """An option out of range, or one that this machine has nothing for."""
