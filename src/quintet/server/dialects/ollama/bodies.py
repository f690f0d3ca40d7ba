"""Request bodies, with Ollama's names; unknown fields are ignored.

Source: api/types.go of ollama/ollama.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from quintet.errors import RequestError
from quintet.server.bodies import MAX_STOP_STRINGS, Body, KeepAlive, StopString

MAX_MESSAGES = 10_000
MAX_INPUTS = 2048
MAX_TOP_LOGPROBS = 20
MAX_FILES = 64

Name = Annotated[str, Field(min_length=1, max_length=256)]
Format = str | dict[str, Any]
Think = bool | Literal["low", "medium", "high", "max"]


class NamedBody(Body):
    """A body that names a model, as `model` or, as older clients do, as `name`."""

    model: Name | None = None
    name: Name | None = None

    @property
    def model_name(self) -> str:
        """The name given.

        Raises:
            RequestError: there is none.
        """
        name = self.model or self.name
        if not name:
            raise RequestError("model is required", parameter="model")
        return name


class Options(Body):
    """Sampling options.  A wrong type is an error; an unknown name is not."""

    num_predict: Annotated[int, Field(ge=-2, lt=2**31)] | None = None
    num_ctx: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    num_keep: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None


class GenerationBody(NamedBody):
    """What /api/generate and /api/chat have in common."""

    stream: bool | None = None
    format: Format | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    shift: bool | None = None


class GenerateBody(GenerationBody):
    """POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class FunctionCall(Body):
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class ToolCall(Body):
    id: str | None = None
    function: FunctionCall


class Message(Body):
    role: Annotated[str, Field(max_length=32)]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Function(Body):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: str = "function"
    function: Function


class ChatBody(GenerationBody):
    """POST /api/chat."""

    messages: Annotated[list[Message], Field(max_length=MAX_MESSAGES)] = Field(default_factory=list)
    tools: list[Tool] | None = None


class EmbedBody(NamedBody):
    """POST /api/embed."""

    input: str | Annotated[list[str], Field(max_length=MAX_INPUTS)] | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None


class EmbeddingsBody(NamedBody):
    """POST /api/embeddings, the older form."""

    prompt: str | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None


class ShowBody(NamedBody):
    """POST /api/show."""

    verbose: bool | None = None


class CopyBody(Body):
    """POST /api/copy."""

    source: Name
    destination: Name


class PullBody(NamedBody):
    """POST /api/pull and /api/push."""

    stream: bool | None = None
    insecure: bool | None = None


class StoredMessage(Body):
    role: Literal["system", "user", "assistant"]
    content: str


class CreateBody(NamedBody):
    """POST /api/create."""

    from_: Annotated[str, Field(max_length=256)] | None = Field(default=None, alias="from")
    files: Annotated[dict[str, str], Field(max_length=MAX_FILES)] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: list[StoredMessage] | None = None
    quantize: str | None = None
    stream: bool | None = None
