"""Items of a conversation: as clients send them, as they are kept, and as templates read them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from quintet.errors import RequestError
from quintet.server.dialects.openai.chat import parsed_arguments
from quintet.server.dialects.openai.responses.bodies import InputItem, Part, TurnBody
from quintet.server.dialects.openai.responses.tools import OfferedTools
from quintet.server.dialects.openai.sampling import refuse

_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


def new_id(prefix: str) -> str:
    """An id that nobody can guess: who knows a response's may read it."""
    return f"{prefix}_{secrets.token_hex(24)}"


def input_items(body: TurnBody) -> list[dict[str, Any]]:
    """The items a client sends, each with an id and in its long form.

    Raises:
        RequestError: an item lacks what its type needs.
        UnsupportedParameterError: an item or a part of a kind that is not served.
    """
    if body.input is None:
        return []
    if isinstance(body.input, str):
        return [_message(InputItem(role="user", content=body.input), "input")]
    return [_item(item, f"input.{index}") for index, item in enumerate(body.input)]


def messages(
    items: Iterable[dict[str, Any]], instructions: str | None, offered: OfferedTools
) -> list[dict[str, Any]]:
    """The conversation as chat templates read it.

    A thought, a text and the calls that follow each other are one message of the assistant.
    Instructions join a system message that opens the conversation: many templates know only one.

    Raises:
        RequestError: there is nothing to answer, or arguments that are no JSON object.
    """
    found: list[dict[str, Any]] = []
    for item in items:
        _append(found, item, offered)
    if instructions:
        if found and found[0]["role"] == "system":
            found[0] = {**found[0], "content": f"{instructions}\n\n{found[0]['content']}"}
        else:
            found.insert(0, {"role": "system", "content": instructions})
    if not found:
        raise RequestError("expected at least one item", parameter="input")
    return found


def text_of(parts: Sequence[dict[str, Any]]) -> str:
    """The text of content parts, joined by line breaks as in chat completions."""
    return "\n".join(part["text"] for part in parts)


def _append(found: list[dict[str, Any]], item: dict[str, Any], offered: OfferedTools) -> None:
    kind = item["type"]
    if kind == "message" and item["role"] != "assistant":
        role = "system" if item["role"] == "developer" else item["role"]
        found.append({"role": role, "content": text_of(item["content"])})
    elif kind == "function_call_output":
        output = item["output"]
        text = output if isinstance(output, str) else text_of(output)
        found.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
    elif kind == "reasoning":
        thought = text_of(item.get("content") or item["summary"])
        if thought:
            _assistant(found, is_start=True)["reasoning_content"] = thought
    elif kind == "message":
        _assistant(found, is_start=False, takes_text=True)["content"] = text_of(item["content"])
    else:
        arguments = parsed_arguments(item["arguments"], "input.arguments")
        name = offered.shown(item.get("namespace"), item["name"])
        function = {"name": name, "arguments": arguments}
        call = {"id": item["call_id"], "type": "function", "function": function}
        _assistant(found, is_start=False).setdefault("tool_calls", []).append(call)


def _assistant(
    found: list[dict[str, Any]], *, is_start: bool, takes_text: bool = False
) -> dict[str, Any]:
    """The message that the next part of an assistant's turn belongs to."""
    last = found[-1] if found and found[-1]["role"] == "assistant" else None
    takes_part = not takes_text or (last and not (last["content"] or "tool_calls" in last))
    if last is not None and not is_start and takes_part:
        return last
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    found.append(message)
    return message


def _item(item: InputItem, where: str) -> dict[str, Any]:
    kind = item.type or ("message" if item.role else None)
    if kind == "message":
        return _message(item, where)
    if kind == "function_call":
        return {
            "id": item.id or new_id("fc"),
            "type": kind,
            "status": "completed",
            "call_id": _needed(item.call_id, f"{where}.call_id"),
            "name": _needed(item.name, f"{where}.name"),
            "arguments": _needed(item.arguments, f"{where}.arguments"),
            **({} if item.namespace is None else {"namespace": item.namespace}),
        }
    if kind == "function_call_output":
        output = _needed(item.output, f"{where}.output")
        return {
            "id": item.id or new_id("fco"),
            "type": kind,
            "status": "completed",
            "call_id": _needed(item.call_id, f"{where}.call_id"),
            "output": output if isinstance(output, str) else _parts(output, where, "input_text"),
        }
    if kind == "reasoning":
        content = item.content if isinstance(item.content, list) else []
        return {
            "id": item.id or new_id("rs"),
            "type": kind,
            "summary": _parts(item.summary or [], where, "summary_text"),
            "content": _parts(content, where, "reasoning_text"),
        }
    if kind is None:
        raise RequestError("expected a type, or a role", parameter=where)
    raise refuse(f"{where}.type", "only messages, function calls, their outputs and reasoning")


def _message(item: InputItem, where: str) -> dict[str, Any]:
    role = _needed(item.role, f"{where}.role")
    content = _needed(item.content, f"{where}.content")
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [Part(type=kind, text=content)] if isinstance(content, str) else content
    return {
        "id": item.id or new_id("msg"),
        "type": "message",
        "status": "completed",
        "role": role,
        "content": _parts(parts, where, kind),
    }


def _parts(parts: Sequence[Part], where: str, kind: str) -> list[dict[str, Any]]:
    """Text parts, of the one kind that belongs where they stand."""
    found: list[dict[str, Any]] = []
    for part in parts:
        text = part.refusal if part.type == "refusal" else part.text
        if part.type != "refusal" and part.type not in _TEXT_PARTS:
            raise refuse(f"{where}.content", "only text parts are supported")
        if text is None:
            raise RequestError("expected a text in the text part", parameter=f"{where}.content")
        found.append(
            {"type": kind, "text": text, **({"annotations": []} if kind == "output_text" else {})}
        )
    return found


def _needed(value: Any, where: str) -> Any:
    if value is None:
        raise RequestError("expected a value", parameter=where)
    return value
