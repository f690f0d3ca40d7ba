"""Ollama's interface as functions: a `Client` of the environment's address behind each."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from oprel import daemon
from oprel.client import Client
from oprel.responses import (
    EmbeddingsResponse,
    EmbedResponse,
    ListResponse,
    ProcessResponse,
    ShowResponse,
    StatusResponse,
)


@functools.lru_cache(maxsize=4)
def _client_of(url: str) -> Client:
    return Client(url)


def _client() -> Client:
    return _client_of(daemon.server_url())


def chat(
    model: str,
    messages: Sequence[Mapping[str, Any] | Any] | None = None,
    stream: bool = False,
    options: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Any:
    """Answer a conversation; see `Client.chat`."""
    return _client().chat(model, messages, stream, options, **fields)


def generate(
    model: str,
    prompt: str = "",
    stream: bool = False,
    options: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Any:
    """Answer a prompt; see `Client.generate`."""
    return _client().generate(model, prompt, stream, options, **fields)


def embed(model: str, input: str | Sequence[str] = "", **fields: Any) -> EmbedResponse:
    """Vectors of texts."""
    return _client().embed(model, input, **fields)


def embeddings(model: str, prompt: str = "", **fields: Any) -> EmbeddingsResponse:
    """The vector of a text, as older programs ask for it."""
    return _client().embeddings(model, prompt, **fields)


def list() -> ListResponse:
    """The models there are."""
    return _client().list()


def ps() -> ProcessResponse:
    """The models in memory."""
    return _client().ps()


def show(model: str) -> ShowResponse:
    """What a model is."""
    return _client().show(model)


def pull(model: str, stream: bool = False) -> Any:
    """Download a model; see `Client.pull`."""
    return _client().pull(model, stream)


def create(model: str, modelfile: str | None = None, stream: bool = False, **fields: Any) -> Any:
    """Make a model from another one; see `Client.create`."""
    return _client().create(model, modelfile, stream, **fields)


def delete(model: str) -> StatusResponse:
    """Remove a model."""
    return _client().delete(model)


def copy(source: str, destination: str) -> StatusResponse:
    """Give a model a second name."""
    return _client().copy(source, destination)
