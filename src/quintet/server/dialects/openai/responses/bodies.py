"""Bodies of the Responses interface.

Source: OpenAI API reference, "Create a model response".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from quintet.server.bodies import Body
from quintet.server.dialects.openai.bodies import (
    MAX_TOP_LOGPROBS,
    ReasoningEffort,
    RequestBody,
    ThinkingBody,
)

MAX_ITEMS = 4096

Id = Annotated[str, Field(min_length=1, max_length=256)]


class Part(Body):
    type: str
    text: str | None = None
    refusal: str | None = None


class InputItem(Body):
    """Any item of a conversation; `items.py` knows which fields go with which type."""

    type: Annotated[str, Field(max_length=64)] | None = None
    id: Id | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    call_id: Id | None = None
    name: Id | None = None
    namespace: Id | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None


# Told apart before they are checked, so that an error names the item at fault.
Input = Annotated[
    Annotated[str, Tag("[text]")]
    | Annotated[list[InputItem], Field(max_length=MAX_ITEMS), Tag("[items]")],
    Discriminator(lambda value: "[text]" if isinstance(value, str) else "[items]"),
]


class FunctionTool(Body):
    type: Annotated[str, Field(max_length=64)]
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: list[FunctionTool] | None = None


class TextFormat(Body):
    type: str
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    format: TextFormat | None = None


class ReasoningOptions(Body):
    effort: ReasoningEffort | None = None


class TurnBody(ThinkingBody):
    """What becomes the prompt of a response."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Input | None = None
    instructions: str | None = None
    previous_response_id: Id | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    conversation: Any = None
    prompt: Any = None


class ResponseBody(RequestBody, TurnBody):
    """POST /v1/responses, and a `response.create` message.

    `generate: false` computes the prompt, so that the next turn finds it, and answers nothing.
    """

    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    include: Annotated[list[str], Field(max_length=64)] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(max_length=64)],
                Annotated[str, Field(max_length=512)],
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    store: bool | None = None
    background: bool | None = None
    generate: bool | None = None
