"""A conversation of blocks to the messages that chat templates print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quintet.errors import RequestError
from quintet.server.dialects.anthropic.bodies import Block, Conversation, Message, Tool
from quintet.server.errors import UnsupportedParameterError
from quintet.server.requests import ChatPrompt

# Claude Code writes a line that differs with each request before its system prompt; it would
# make every prefix a new one.
_BILLING_LINE = "x-anthropic-billing-header:"
_THINKING = ("thinking", "redacted_thinking")


def chat_prompt(body: Conversation) -> ChatPrompt:
    """The conversation as the engine takes it.

    A body without `thinking` asks for an answer without a thought.

    Raises:
        RequestError: blocks where they cannot stand, or without what they need.
        UnsupportedParameterError: images, documents, Anthropic's own tools, a prefilled answer.
    """
    messages: list[dict[str, Any]] = []
    system = _system(body.system)
    if system:
        messages.append({"role": "system", "content": system})
    for index, message in enumerate(body.messages):
        messages += _messages(message, f"messages.{index}")
    if body.messages[-1].role == "assistant":
        raise UnsupportedParameterError(
            "expected a last message of the user: answers cannot be begun for the model",
            parameter="messages",
        )
    choice = body.tool_choice
    return ChatPrompt(
        messages,
        [_tool(tool, f"tools.{index}") for index, tool in enumerate(body.tools)]
        if body.tools and not (choice and choice.type == "none")
        else None,
        body.thinking is not None and body.thinking.type != "disabled",
        _tool_choice(body),
        choice is None or not choice.disable_parallel_tool_use,
    )


def _system(system: str | list[Block] | None) -> str:
    if system is None or isinstance(system, str):
        return system or ""
    texts = [_text(block, "system") for block in system]
    return "\n".join(text for text in texts if not text.startswith(_BILLING_LINE))


def _tool_choice(body: Conversation) -> str | dict[str, Any]:
    choice = body.tool_choice
    if choice is None or choice.type in ("auto", "none"):
        return "auto" if choice is None else choice.type
    if choice.type == "any":
        return "required"
    if choice.name is None:
        raise RequestError("expected the name of a tool", parameter="tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}


def _tool(tool: Tool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise UnsupportedParameterError(
            f"tools of the type {tool.type[:64]!r} are not served", parameter=where
        )
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema or {}}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _messages(message: Message, where: str) -> Iterator[dict[str, Any]]:
    """One message, after the tool results it carries, which templates have as messages."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
    elif message.role == "assistant":
        yield _assistant(message.content, where)
    else:
        yield from _user(message.content, where)


def _assistant(blocks: list[Block], where: str) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": "assistant"}
    texts, thoughts, calls = [], [], []
    for block in blocks:
        if block.type in _THINKING:
            thoughts.append(block.thinking or "")
        elif block.type == "tool_use":
            if block.name is None or block.input is None:
                raise RequestError("expected a tool_use with name and input", parameter=where)
            function = {"name": block.name, "arguments": block.input}
            calls.append({"id": block.id or "", "type": "function", "function": function})
        else:
            texts.append(_text(block, where))
    rendered["content"] = "\n".join(texts)
    if any(thoughts):
        rendered["reasoning_content"] = "".join(thoughts)
    if calls:
        rendered["tool_calls"] = calls
    return rendered


def _user(blocks: list[Block], where: str) -> Iterator[dict[str, Any]]:
    texts = []
    for block in blocks:
        if block.type == "tool_result":
            if block.tool_use_id is None:
                raise RequestError("expected a tool_result with tool_use_id", parameter=where)
            yield {
                "role": "tool",
                "tool_call_id": block.tool_use_id,
                "content": _result(block, where),
            }
        else:
            texts.append(_text(block, where))
    if texts:
        yield {"role": "user", "content": "\n".join(texts)}


def _result(block: Block, where: str) -> str:
    content = block.content
    text = content if isinstance(content, str) else ""
    if isinstance(content, list):
        text = "\n".join(_text(part, where) for part in content)
    return f"Error: {text}" if block.is_error else text


def _text(block: Block, where: str) -> str:
    if block.type != "text":
        raise UnsupportedParameterError(
            f"only text can be read here, found a block of the type {block.type[:64]!r}",
            parameter=where,
        )
    if block.text is None:
        raise RequestError("expected a text in the text block", parameter=where)
    return block.text
