"""Request bodies and WebSocket messages of Woolly; unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from quintet.server.bodies import MAX_STOP_STRINGS, Body, KeepAlive, StopString

MAX_MESSAGES = 10_000
MAX_INPUTS = 2048

Name = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class SamplingConfig(Body):
    """How tokens are drawn; what is left out is the example's of the reference."""

    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] = 200
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 40
    repeat_penalty: float = 1.1
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None


class Message(Body):
    role: Literal["system", "user", "assistant"]
    content: str


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]


class GenerateBody(SamplingConfig):
    """POST /api/generate."""

    prompt: str
    model: Name | None = None
    keep_alive: KeepAlive | None = None
    stream: bool = False


class ChatBody(SamplingConfig):
    """POST /api/chat."""

    messages: Messages
    model: Name | None = None
    keep_alive: KeepAlive | None = None
    stream: bool = False


class LoadBody(Body):
    """POST /api/models/load.  `gpu_layers` is read nowhere: there is no GPU to put them on."""

    name: Name
    gpu_layers: int | None = None


class UnloadBody(Body):
    """POST /api/models/unload; the current model where none is named."""

    name: Name | None = None


class TokenizeBody(Body):
    """POST /api/tokenize."""

    text: str
    model: Name | None = None
    keep_alive: KeepAlive | None = None


class DetokenizeBody(Body):
    """POST /api/detokenize."""

    tokens: list[TokenId]
    model: Name | None = None
    keep_alive: KeepAlive | None = None


class EmbeddingsBody(Body):
    """POST /api/embeddings."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
    model: Name | None = None
    keep_alive: KeepAlive | None = None


class ClientMessage(Body):
    """A message on the WebSocket; which fields it has depends on its type."""

    type: Annotated[str, Field(max_length=64)]
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    prompt: str | None = None
    messages: Messages | None = None
    model: Name | None = None
    keep_alive: KeepAlive | None = None
    config: dict[str, Any] | None = None
