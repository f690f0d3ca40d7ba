"""From a conversation to a request, and from its chunks to thought, content and tool calls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from quintet.engine.output import OutputChunk
from quintet.engine.request import Request
from quintet.errors import RequestError
from quintet.parsing.answer_parser import AnswerParser
from quintet.parsing.events import ContentDelta, ReasoningDelta, ToolCallDelta
from quintet.parsing.formats import call_syntax
from quintet.parsing.syntax import CallSyntax
from quintet.parsing.thinking import THINK_END, THINK_START, Thinking, thinking_after
from quintet.parsing.tool_grammar import tool_call_grammar
from quintet.parsing.tool_parser import ToolCallParser
from quintet.sampling.constraint import Constraint
from quintet.sampling.params import SamplingParams
from quintet.tokenizer import Tokenizer

Messages: TypeAlias = Sequence[Mapping[str, Any]]
Tools: TypeAlias = Sequence[Mapping[str, Any]]
ToolChoice: TypeAlias = str | Mapping[str, Any]

MAX_TOOLS: Final = 256


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """
    How an assistant's message is to be made.

    Args:
        tools: functions it may call: `{"type": "function", "function": {"name": ...,
            "description": ..., "parameters": <JSON schema>}}`, or what stands under "function".
        tool_choice: "auto" leaves it to the model: under a JSON schema as constraint it answers so
            or, where it marks calls, calls; under any other constraint it cannot call.  "none"
            hides the tools from it; "required" makes it call, and
            `{"type": "function", "function": {"name": ...}}` call that one: arguments
            then follow the function's schema, and nothing but calls can come.
        parallel_tool_calls: False takes one call at most.
        enable_thinking: for templates that ask; None leaves it to them.
    """

    tools: Tools | None = None
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    enable_thinking: bool | None = None


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """
    What a conversation comes to for one model.

    Args:
        token_ids: the prompt.
        params: with the constraint that the tool choice asks for.
        thinking: how the answer may begin.
        visible_token_ids: control tokens that mark thoughts and calls.
        syntax: of tool calls; None where there are none to find.
        names: of the functions.
        max_calls: to find; None for no bound.
    """

    token_ids: Sequence[int]
    params: SamplingParams
    thinking: Thinking
    visible_token_ids: frozenset[int]
    syntax: CallSyntax | None
    names: tuple[str, ...]
    max_calls: int | None

    def new_parser(self) -> AnswerParser | None:
        """A parser for one answer; None where all of it is content."""
        tools = None
        if self.syntax is not None:
            tools = ToolCallParser(self.syntax, self.names, max_calls=self.max_calls)
        if tools is None and self.thinking is Thinking.NONE:
            return None
        return AnswerParser(self.thinking, tools)


def plan_chat(
    tokenizer: Tokenizer, messages: Messages, params: SamplingParams, options: ChatOptions
) -> ChatPlan:
    """
    Render a conversation and work out what its answer may look like.

    Raises:
        RequestError: the template refuses the messages; tools that are no functions; a tool
            choice without such a tool, or together with a constraint.
    """
    functions = [_function(tool) for tool in _checked_tools(options.tools)]
    chosen = _chosen(functions, options.tool_choice)
    tools = options.tools if functions and options.tool_choice != "none" else None
    token_ids = tokenizer.encode_chat(
        messages, tools=tools, enable_thinking=options.enable_thinking
    )
    marks = [THINK_START, THINK_END]
    syntax = None
    if tools is not None:
        syntax = call_syntax(_tool_template(tokenizer))
        marks += [mark.strip() for mark in syntax.marks]
    if chosen and params.constraint is not None:
        raise RequestError(
            "expected no constraint beside it: calls have a form of their own",
            parameter="tool_choice",
        )
    answer_schema = _answer_schema(params.constraint, syntax)
    if syntax is not None and (chosen or answer_schema is not None):
        grammar = tool_call_grammar(
            syntax,
            chosen or functions,
            lambda mark: _control_id(tokenizer, mark),
            is_parallel=options.parallel_tool_calls,
            answer_schema=answer_schema,
        )
        parameter = params.constraint.parameter if params.constraint else "tools"
        constraint = Constraint.lark(grammar, parameter=parameter)
        params = dataclasses.replace(params, constraint=constraint)
    visible = (_control_id(tokenizer, mark) for mark in marks)
    return ChatPlan(
        token_ids=token_ids,
        params=params,
        thinking=thinking_after(tokenizer, token_ids, options.enable_thinking),
        visible_token_ids=frozenset(token_id for token_id in visible if token_id is not None),
        syntax=syntax,
        names=tuple(function["name"] for function in functions),
        max_calls=None if options.parallel_tool_calls else 1,
    )


class ChatRequest:
    """
    A request and the parsers of its answers.

    Args:
        request: for the engine.
        new_parser: makes the parser of an answer; None where all of it is content.
    """

    def __init__(self, request: Request, new_parser: Callable[[], AnswerParser | None]) -> None:
        self.request = request
        self._parsers = [_ChunkParser(new_parser()) for _ in range(request.params.n)]

    def parse(self, chunk: OutputChunk) -> OutputChunk:
        """The engine's next chunk with thought, content and tool calls told apart."""
        return self._parsers[chunk.index].parse(chunk)


class _ChunkParser:
    """Of one answer."""

    def __init__(self, parser: AnswerParser | None) -> None:
        self._parser = parser
        self._num_reasoning_tokens = 0

    def parse(self, chunk: OutputChunk) -> OutputChunk:
        if self._parser is None:
            return chunk
        was_thinking = self._parser.is_thinking
        events = self._parser.push(chunk.text)
        if was_thinking or self._parser.is_thinking:
            self._num_reasoning_tokens += len(chunk.token_ids)
        usage = chunk.usage
        if chunk.finish_reason is not None:
            events += self._parser.finish()
        if usage is not None:
            usage = dataclasses.replace(usage, num_reasoning_tokens=self._num_reasoning_tokens)
        return dataclasses.replace(
            chunk,
            text="".join(event.text for event in events if isinstance(event, ContentDelta)),
            reasoning="".join(e.text for e in events if isinstance(e, ReasoningDelta)),
            tool_calls=tuple(event for event in events if isinstance(event, ToolCallDelta)),
            usage=usage,
        )


def unparsed(chunk: OutputChunk) -> OutputChunk:
    """The chunk itself: what is no chat has nothing to parse."""
    return chunk


def _checked_tools(tools: Tools | None) -> Tools:
    if tools is None:
        return ()
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise RequestError("expected a list of functions", parameter="tools")
    if len(tools) > MAX_TOOLS:
        raise RequestError(
            f"expected at most {MAX_TOOLS} functions, found {len(tools)}", parameter="tools"
        )
    return tools


def _function(tool: Any) -> Mapping[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RequestError("expected functions with a name", parameter="tools")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise RequestError("expected parameters that are a JSON schema", parameter="tools")
    return function


def _chosen(functions: Sequence[Mapping[str, Any]], choice: Any) -> list[Mapping[str, Any]]:
    """The functions one of which must be called; none where the model may do as it likes."""
    if choice in ("none", "auto"):
        return []
    name = None
    if choice != "required":
        function = choice.get("function") if isinstance(choice, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str):
            raise RequestError(
                'expected "none", "auto", "required" or an object that names a function',
                parameter="tool_choice",
            )
    chosen = [function for function in functions if name is None or function["name"] == name]
    if not chosen:
        raise RequestError("expected one of the tools given", parameter="tool_choice")
    return chosen


def _answer_schema(
    constraint: Constraint | None, syntax: CallSyntax | None
) -> dict[str, Any] | None:
    """The schema of a constraint, where a call may come in its place; None where none may."""
    if constraint is None or constraint.kind != "json_schema":
        return None
    if syntax is None or not syntax.openers[0]:
        return None  # without a mark, a call and an answer begin alike: the grammar is ambiguous
    try:
        schema = json.loads(constraint.source)
    except (ValueError, RecursionError):
        return None  # it will be refused as it is
    return schema if isinstance(schema, dict) else None


def _tool_template(tokenizer: Tokenizer) -> str:
    templates = tokenizer.chat_templates
    return templates.get("tool_use") or templates.get("default", "")


def _control_id(tokenizer: Tokenizer, mark: str) -> int | None:
    token_id = tokenizer.token_to_id(mark)
    return token_id if token_id is not None and tokenizer.is_special(token_id) else None
