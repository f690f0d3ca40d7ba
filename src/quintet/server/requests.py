"""What a dialect asks of a model: a prompt, how to sample, and how to be served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from quintet.engine.request import RequestOptions
from quintet.sampling.params import SamplingParams


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, to be rendered by the model's chat template.

    Args:
        messages: role and content, in the template's own shape.
        tools: function definitions shown to the template.
        enable_thinking: for templates that know the switch; None leaves their default.
        tool_choice: "auto", "none", "required", or an object that names a function.
        parallel_tool_calls: there may be several calls.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    enable_thinking: bool | None = None
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True


Prompt: TypeAlias = "str | list[int] | ChatPrompt"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """The answers to generate to one prompt, `params.n` of them.

    Args:
        prompt: text, token ids or a conversation.
        params: how to sample and when to stop.
        options: how it is served; see `engine.request.RequestOptions`.
        asked: the fields of `params` that the client set; a stored model's own values take the
            place of the others, see `stored`.  None: they have done so, or are not to.
    """

    prompt: Prompt
    params: SamplingParams
    options: RequestOptions = field(default_factory=RequestOptions)
    asked: frozenset[str] | None = None
