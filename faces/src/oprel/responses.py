"""Answers, to be read by attribute and by item: `r.message.content`, `r["message"]["content"]`.

They are dictionaries, so that they can be compared, printed and written as JSON as they came.

Source: Oprel SDK, "Response Models"; the further fields are those of api/types.go of ollama/ollama.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar


class Record(dict[str, Any]):
    """A JSON object with attributes.  Absent fields that the class declares are None."""

    _records: ClassVar[Mapping[str, type[Record]]] = {}

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        for name, kind in self._records.items():
            value = self.get(name)
            if isinstance(value, list):
                self[name] = [kind(item) if isinstance(item, dict) else item for item in value]
            elif isinstance(value, dict):
                self[name] = kind(value)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if not name.startswith("_") and name in _declared(type(self)):
            return None
        raise AttributeError(f"{type(self).__name__!r} has no field {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """The fields as plain dictionaries and lists."""
        return {
            name: _plain(value, exclude_none)
            for name, value in self.items()
            if not (exclude_none and value is None)
        }


@functools.cache
def _declared(kind: type[Record]) -> frozenset[str]:
    """The fields that a class and those above it declare."""
    import inspect

    own = (inspect.get_annotations(each) for each in kind.__mro__ if issubclass(each, Record))
    return frozenset(name for annotations in own for name in annotations)


def _plain(value: Any, exclude_none: bool) -> Any:
    if isinstance(value, Record):
        return value.model_dump(exclude_none=exclude_none)
    return [_plain(item, exclude_none) for item in value] if isinstance(value, list) else value


class Function(Record):
    """The function of a tool call."""

    name: str
    arguments: dict[str, Any]


class ToolCall(Record):
    """A call that the model makes."""

    _records: ClassVar[Mapping[str, type[Record]]] = {"function": Function}
    function: Function


class Message(Record):
    """A message of a conversation."""

    _records: ClassVar[Mapping[str, type[Record]]] = {"tool_calls": ToolCall}
    role: str
    content: str
    images: list[Any] | None
    thinking: str | None
    tool_calls: list[ToolCall] | None
    tool_name: str | None


class Timed(Record):
    """What answers that generate have in common; durations are nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None
    total_duration: int | None
    load_duration: int | None
    prompt_eval_count: int | None
    prompt_eval_duration: int | None
    eval_count: int | None
    eval_duration: int | None
    logprobs: list[Any] | None


class ChatResponse(Timed):
    """The answer of `chat`."""

    _records: ClassVar[Mapping[str, type[Record]]] = {"message": Message}
    message: Message


class GenerateResponse(Timed):
    """The answer of `generate`."""

    response: str
    thinking: str | None
    context: list[int] | None


class Details(Record):
    """What a model is."""

    parent_model: str | None
    format: str | None
    family: str | None
    families: list[str] | None
    parameter_size: str | None
    quantization_level: str | None


class ModelInfo(Record):
    """A model of a list; `model` and `name` are the same."""

    _records: ClassVar[Mapping[str, type[Record]]] = {"details": Details}
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    expires_at: str | None
    size_vram: int | None
    context_length: int | None


class ListResponse(Record):
    """The answer of `list`."""

    _records: ClassVar[Mapping[str, type[Record]]] = {"models": ModelInfo}
    models: list[ModelInfo]


class ProcessResponse(Record):
    """The answer of `ps`: the models in memory."""

    _records: ClassVar[Mapping[str, type[Record]]] = {"models": ModelInfo}
    models: list[ModelInfo]


class ShowResponse(Record):
    """The answer of `show`."""

    _records: ClassVar[Mapping[str, type[Record]]] = {"details": Details}
    modelfile: str
    parameters: str
    template: str
    system: str
    license: str | None
    details: Details
    messages: list[dict[str, str]] | None
    model_info: dict[str, Any]
    capabilities: list[str] | None
    modified_at: str | None

    @property
    def modelinfo(self) -> dict[str, Any]:
        """As Ollama's client calls `model_info`."""
        found: dict[str, Any] = self["model_info"]
        return found


class ProgressResponse(Record):
    """How far a `pull` or `create` is."""

    status: str
    completed: int | None
    total: int | None
    digest: str | None


class StatusResponse(Record):
    """How a `delete` or `copy` went."""

    status: str


class EmbedResponse(Timed):
    """The answer of `embed`."""

    embeddings: list[list[float]]


class EmbeddingsResponse(Record):
    """The answer of `embeddings`."""

    embedding: list[float]
