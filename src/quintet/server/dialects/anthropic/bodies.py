"""Request bodies of the Messages interface; unknown fields are ignored.

Source: Anthropic API reference, "Create a message".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from quintet.server.bodies import MAX_STOP_STRINGS, Body, KeepAlive, StopString

MAX_BLOCKS = 4096


class Block(Body):
    """A piece of content; which fields it has depends on its type."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None
    is_error: bool | None = None


Blocks = Annotated[list[Block], Field(max_length=MAX_BLOCKS)]


class Message(Body):
    role: Literal["user", "assistant"]
    content: str | Blocks


class Tool(Body):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class Conversation(Body):
    """POST /v1/messages/count_tokens, and what /v1/messages has in common with it."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | Blocks | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    keep_alive: KeepAlive | None = None


class MessagesBody(Conversation):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
