"""Grammars for tool_choice, in every format: what they make a model write is read back as calls."""

from __future__ import annotations

import json

import pytest

from quintet.parsing.formats import hermes, llama3, mistral, plain_json
from quintet.parsing.syntax import CallSyntax
from quintet.parsing.tool_grammar import tool_call_grammar
from sampling.grammars import takes

SYNTAXES = [hermes.SYNTAX, llama3.SYNTAX, mistral.SYNTAX, plain_json.SYNTAX]
TOOLS = [
    {
        "name": "get_weather",
        "parameters": {
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"city": {"enum": ["Paris", "Rome"]}},
        },
    },
    {"name": 'odd "name"', "parameters": None},
]


def written(syntax: CallSyntax, *calls: tuple[str, object]) -> str:
    """Calls as a model writes them in this format."""
    objects = [
        json.dumps({"name": name, syntax.arguments_key: arguments}) for name, arguments in calls
    ]
    if syntax.is_list:
        return syntax.openers[0] + f"[{syntax.separator.join(objects)}]" + syntax.closer
    return syntax.separator.join(syntax.openers[0] + o + syntax.closer for o in objects)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("is_parallel", [True, False])
def test_only_valid_calls_fit(syntax: CallSyntax, is_parallel: bool) -> None:
    """A call with its schema fits, several where they may; text, other names and types do not."""
    grammar = tool_call_grammar(syntax, TOOLS, lambda _: None, is_parallel=is_parallel)
    paris, odd = ("get_weather", {"city": "Paris"}), ('odd "name"', {"x": [1, None]})
    assert takes(grammar, written(syntax, paris))
    assert takes(grammar, written(syntax, odd))
    assert takes(grammar, written(syntax, paris, odd)) == is_parallel
    assert not takes(grammar, written(syntax, ("get_weather", {"city": "Oslo"})))
    assert not takes(grammar, written(syntax, ("get_weather", {})))
    assert not takes(grammar, written(syntax, ("get_time", {})))
    assert not takes(grammar, written(syntax, ('odd "name"', 5)))
    assert not takes(grammar, "I would rather talk. " + written(syntax, paris))
    assert not takes(grammar, "")


def test_marks_that_are_control_tokens_are_written_by_id() -> None:
    """No text spells a control token, so the grammar names it."""
    grammar = tool_call_grammar(hermes.SYNTAX, TOOLS, {"<tool_call>": 7}.get, is_parallel=False)
    assert '<[7]> "\\n" object "\\n</tool_call>"' in grammar
    grammar = tool_call_grammar(mistral.SYNTAX, TOOLS, {"[TOOL_CALLS]": 5}.get, is_parallel=True)
    assert 'calls: <[5]> "["' in grammar


@pytest.mark.parametrize("syntax", [hermes.SYNTAX, mistral.SYNTAX])
def test_an_answer_of_a_schema_may_come_instead(syntax: CallSyntax) -> None:
    """Calls or JSON of the schema, not both and nothing else."""
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    grammar = tool_call_grammar(
        syntax, TOOLS, lambda _: None, is_parallel=False, answer_schema=schema
    )
    paris = written(syntax, ("get_weather", {"city": "Paris"}))
    assert takes(grammar, paris)
    assert takes(grammar, '{"a": 1}')
    assert not takes(grammar, '{"a": 2}')
    assert not takes(grammar, paris + '{"a": 1}')
