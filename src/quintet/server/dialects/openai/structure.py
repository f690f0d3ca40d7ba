"""Tools, tool choice and response formats of a body; tool calls and thoughts of a reply.

Sources: OpenAI API reference, "Create chat completion" (tools, tool_choice, response_format) and
"The chat completion chunk object"; DeepSeek's and llama-server's `reasoning_content`, which vLLM
calls `reasoning`: replies carry both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from quintet.engine.output import FinishReason, OutputChunk
from quintet.engine.request import RequestOptions
from quintet.errors import RequestError
from quintet.parsing.events import ToolCall, ToolCallDelta
from quintet.sampling.constraint import Constraint
from quintet.server.dialects.openai.bodies import (
    GuidedJson,
    ResponseFormat,
    SamplerBody,
    StructuredOutputs,
    ThinkingBody,
    Tool,
)
from quintet.server.dialects.openai.sampling import refuse


def checked_tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any]:
    """The tool choice, "auto" where there is none.

    Raises:
        RequestError: none of the shapes there are.
        UnsupportedParameterError: a shape of OpenAI's that is not served.
    """
    if choice is None or choice in ("none", "auto", "required"):
        return choice or "auto"
    if isinstance(choice, dict):
        if choice.get("type") in ("allowed_tools", "custom"):
            raise refuse("tool_choice", "only functions can be chosen")
        function = choice.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return {"type": "function", "function": {"name": function["name"]}}
    raise RequestError(
        'expected "none", "auto", "required" or an object that names a function',
        parameter="tool_choice",
    )


def shown_tools(tools: Sequence[Tool] | None, choice: Any) -> list[dict[str, Any]] | None:
    """The tools as templates read them, without nulls; none where the model may not call any."""
    if not tools or choice == "none":
        return None
    return [tool.model_dump(exclude_none=True) for tool in tools]


def thinking_switch(body: ThinkingBody, effort: str | None) -> bool | None:
    """Whether the model is to think; None, and any effort but "none", leave it to the template."""
    if body.enable_thinking is not None:
        return body.enable_thinking
    if body.chat_template_kwargs and body.chat_template_kwargs.enable_thinking is not None:
        return body.chat_template_kwargs.enable_thinking
    return False if effort == "none" else None


def thinking_budget(body: ThinkingBody) -> RequestOptions:
    """How long a thought may be, where the client says so.

    Raises:
        RequestError: it says so twice.
    """
    budget, other = body.thinking_token_budget, body.thinking_budget_tokens
    if budget is not None and other is not None:
        raise RequestError(
            "expected it or thinking_token_budget, found both", parameter="thinking_budget_tokens"
        )
    budget = other if budget is None else budget
    return {} if budget is None or budget < 0 else {"max_thinking_tokens": budget}


def constraint_of(body: SamplerBody) -> Constraint | None:
    """The form an answer must have, whichever of the fields asks for it.

    Raises:
        RequestError: several do, or a form that makes no sense.
        UnsupportedParameterError: a kind that is not served.
    """
    found = [
        constraint
        for constraint in (
            response_constraint(body.response_format),
            _json(body.guided_json, "guided_json"),
            _json(body.json_schema, "json_schema"),
            _given(Constraint.regex, body.guided_regex, "guided_regex"),
            _given(Constraint.choice, body.guided_choice, "guided_choice"),
            _given(_grammar, body.guided_grammar, "guided_grammar"),
            _given(Constraint.gbnf, body.grammar or None, "grammar"),
            *_structured(body.structured_outputs),
        )
        if constraint is not None
    ]
    if len(found) > 1:
        names = " and ".join(constraint.parameter for constraint in found)
        raise RequestError(
            f"expected one form of the answer, found {names}", parameter=found[1].parameter
        )
    return found[0] if found else None


def _structured(outputs: StructuredOutputs | None) -> Iterator[Constraint | None]:
    if outputs is None:
        return
    name = "structured_outputs"
    if outputs.structural_tag is not None:
        raise refuse(f"{name}.structural_tag", "not supported; use tools")
    yield _json(outputs.json_, f"{name}.json")
    yield _given(Constraint.regex, outputs.regex, f"{name}.regex")
    yield _given(Constraint.choice, outputs.choice, f"{name}.choice")
    yield _given(_grammar, outputs.grammar, f"{name}.grammar")
    if outputs.json_object:
        yield Constraint.json_object(parameter=f"{name}.json_object")


def _json(schema: GuidedJson | None, parameter: str) -> Constraint | None:
    return None if schema is None else Constraint.json_schema(schema, parameter=parameter)


def _given(make: Callable[..., Constraint], value: Any, parameter: str) -> Constraint | None:
    return None if value is None else make(value, parameter=parameter)


def _grammar(text: str, *, parameter: str) -> Constraint:
    """vLLM takes both notations; only GBNF defines its rules with `::=`."""
    make = Constraint.gbnf if "::=" in text else Constraint.lark
    return make(text, parameter=parameter)


def response_constraint(
    format_: ResponseFormat | None, *, parameter: str = "response_format"
) -> Constraint | None:
    """What a response format demands; a schema is enforced whether `strict` or not.

    Raises:
        RequestError: a json_schema without a schema.
        UnsupportedParameterError: a type that is not served.
    """
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        if format_.schema_ is not None:  # llama-server's shorthand
            return Constraint.json_schema(format_.schema_, parameter=parameter)
        return Constraint.json_object(parameter=parameter)
    if format_.type == "json_schema":
        if format_.json_schema is None or format_.json_schema.schema_ is None:
            raise RequestError("expected a schema", parameter=f"{parameter}.json_schema")
        return Constraint.json_schema(format_.json_schema.schema_, parameter=parameter)
    raise refuse(parameter, "only text, json_object and json_schema are supported")


def finish_reason(reason: FinishReason | None, has_calls: bool) -> str | None:
    """OpenAI's word.

    An answer that ends by itself after calls waits for their results.  One that ran out of time was
    cut by a limit of its request, which clients know as "length" alone.
    """
    if reason == "stop" and has_calls:
        return "tool_calls"
    return "length" if reason == "timeout" else reason


def deltas(chunk: OutputChunk) -> Iterator[dict[str, Any]]:
    """What a chunk adds to a streamed message, in the order a client expects it."""
    if chunk.reasoning:
        yield {"reasoning_content": chunk.reasoning, "reasoning": chunk.reasoning}
    if chunk.text:
        yield {"content": chunk.text}
    for call in chunk.tool_calls:
        yield {"tool_calls": [_call_delta(call)]}


def message(text: str, reasoning: str, tool_calls: Sequence[ToolCall]) -> dict[str, Any]:
    """A whole message; its content is null where there are only calls."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in tool_calls
    ]
    whole: dict[str, Any] = {
        "role": "assistant",
        "content": None if calls and not text else text,
        "refusal": None,
    }
    if reasoning:
        whole |= {"reasoning_content": reasoning, "reasoning": reasoning}
    if calls:
        whole["tool_calls"] = calls
    return whole


def _call_delta(call: ToolCallDelta) -> dict[str, Any]:
    if call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {
        "index": call.index,
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
