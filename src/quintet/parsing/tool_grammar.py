"""Grammars that make a model call tools, for `tool_choice`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from quintet.parsing.syntax import CallSyntax

# As in the JSON of constraints: white space that can be read, but not without end.  What cannot
# be enforced in a tool's schema is left to the model.
_JSON_FORM: Final = {
    "whitespace_flexible": False,
    "item_separator": r",(?: |\n {0,32})?",
    "key_separator": ": ?",
    "lenient": True,
}


def tool_call_grammar(
    syntax: CallSyntax,
    tools: Sequence[Mapping[str, Any]],
    control_id: Callable[[str], int | None],
    *,
    is_parallel: bool,
    answer_schema: Mapping[str, Any] | None = None,
) -> str:
    """A Lark grammar of calls and nothing else, unless it is an answer of a given form.

    Args:
        tools: the functions that may be called: objects with `name` and `parameters`.
        control_id: the id of a mark that is a control token, else None.
        is_parallel: several calls may follow each other; otherwise exactly one.
        answer_schema: JSON of this schema may come in the place of calls; only for a syntax that
            begins with a mark.
    """
    if syntax.is_list:
        calls = '"[" call (SEPARATOR call)* "]"' if is_parallel else '"[" call "]"'
        calls = f"{_mark(syntax.openers[0], control_id)} {calls} {_mark(syntax.closer, control_id)}"
        lines = [f"calls: {calls}", "call: object"]
    else:
        opener, closer = (_mark(m, control_id) for m in (syntax.openers[0], syntax.closer))
        lines = [
            f"calls: {'call (SEPARATOR call)*' if is_parallel else 'call'}",
            f"call: {opener} object {closer}",
        ]
    if answer_schema is None:
        lines.append("start: calls")
    else:
        lines.append("start: calls | answer")
        form = {**_JSON_FORM, "lenient": False}
        lines.append(f"answer: %json {json.dumps({**answer_schema, 'x-guidance': form})}")
    if is_parallel:
        lines.append(f"SEPARATOR: {json.dumps(syntax.separator)}")
    lines.append("object: " + " | ".join(f"call_{index}" for index in range(len(tools))))
    for index, tool in enumerate(tools):
        head = f'{{"name": {json.dumps(tool["name"])}, "{syntax.arguments_key}": '
        lines.append(f'call_{index}: {json.dumps(head)} arguments_{index} "}}"')
        lines.append(f"arguments_{index}: %json {json.dumps(_schema(tool.get('parameters')))}")
    return "\n".join(lines)


def _mark(mark: str, control_id: Callable[[str], int | None]) -> str:
    """A mark in Lark: control tokens by id, since no text spells them."""
    text = mark.strip()
    token_id = control_id(text) if text else None
    if token_id is None:
        return json.dumps(mark) if mark else ""
    before, _, after = mark.partition(text)
    parts = [json.dumps(before), f"<[{token_id}]>", json.dumps(after)]
    return " ".join(part for part in parts if part != '""')


def _schema(parameters: Any) -> dict[str, Any]:
    schema = dict(parameters) if isinstance(parameters, Mapping) else {}
    return {**schema, "type": "object", "x-guidance": _JSON_FORM}
