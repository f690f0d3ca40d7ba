"""What a llama-server answers, as dataclasses; fields it has beyond these are left out."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from llamatelemetry.exceptions import ClientError

_T = TypeVar("_T")


@dataclass(kw_only=True)
class Message:
    """What somebody said."""

    role: str
    content: str


@dataclass(kw_only=True)
class Choice:
    """An answer of a chat."""

    index: int
    message: Message
    finish_reason: str


@dataclass(kw_only=True)
class Usage:
    """Tokens a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(kw_only=True)
class ChatCompletionResponse:
    """A chat's answers."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


@dataclass(kw_only=True)
class Delta:
    """What is new of an answer."""

    role: str | None = None
    content: str | None = None


@dataclass(kw_only=True)
class ChunkChoice:
    """An answer of a streamed chat."""

    index: int
    delta: Delta
    finish_reason: str | None = None


@dataclass(kw_only=True)
class ChatCompletionChunk:
    """A part of a streamed chat's answers."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]


@dataclass(kw_only=True)
class CompletionChoice:
    """A continuation."""

    index: int
    text: str
    finish_reason: str | None = None


@dataclass(kw_only=True)
class CompletionResponse:
    """A text's continuations."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


@dataclass(kw_only=True)
class Embedding:
    """A text's vector."""

    object: str = "embedding"
    embedding: list[float]
    index: int


@dataclass(kw_only=True)
class EmbeddingUsage:
    """Tokens an embedding took."""

    prompt_tokens: int
    total_tokens: int


@dataclass(kw_only=True)
class EmbeddingResponse:
    """Vectors of texts, in their order."""

    object: str = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@dataclass(kw_only=True)
class Model:
    """A model a server has."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = ""


@dataclass(kw_only=True)
class ModelList:
    """The models a server has."""

    object: str = "list"
    data: list[Model]


@dataclass(kw_only=True)
class TokenizeResponse:
    """A text's tokens."""

    tokens: list[int]


@dataclass(kw_only=True)
class DetokenizeResponse:
    """The text of tokens."""

    content: str


def parsed(kind: type[_T], content: Any, where: str = "the answer") -> _T:
    """
    A JSON object as a dataclass.

    Raises:
        ClientError: a field is missing or of another type; says which.
    """
    if not isinstance(content, dict):
        raise ClientError(f"{where}: expected an object, found {type(content).__name__}")
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(typing.cast("Any", kind)):
        if field.name in content:
            path = f"{where}.{field.name}"
            values[field.name] = _value(hints[field.name], content[field.name], path)
        elif field.default is dataclasses.MISSING:
            raise ClientError(f"{where}: expected {field.name!r}, found none")
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(each for each in typing.get_args(kind) if each is not types.NoneType)
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            raise ClientError(f"{where}: expected a list, found {type(value).__name__}")
        (item,) = typing.get_args(kind)
        return [_value(item, each, f"{where}[{i}]") for i, each in enumerate(value)]
    if dataclasses.is_dataclass(kind):
        return parsed(typing.cast("type[Any]", kind), value, where)
    if kind is str and value is None:
        return ""  # the content of a message without any
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ClientError(f"{where}: expected {kind.__name__}, found {type(value).__name__}")
    return value
